"""Unit vectors and correlations, and what happens to vectors without direction."""

import numpy as np
import pytest
import torch

from kdlab.losses.rows import correlation_rows, unit_rows


def test_unit_rows_of_three_and_four_is_the_value_by_hand():
    rows = torch.tensor([[3.0, 4.0], [-6.0, 8.0]], dtype=torch.float64)
    torch.testing.assert_close(unit_rows(rows), torch.tensor([[0.6, 0.8], [-0.6, 0.8]], dtype=torch.float64))


@pytest.mark.parametrize("normalise", [unit_rows, correlation_rows])
def test_a_row_of_zeros_stays_zeros_and_gets_no_gradient(normalise):
    rows = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]], requires_grad=True)
    unit = normalise(rows)
    (unit * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert unit[0].tolist() == [0.0, 0.0, 0.0]
    assert rows.grad[0].tolist() == [0.0, 0.0, 0.0]
    assert rows.grad[1].abs().max() > 0.01


def test_the_gradient_of_unit_rows_agrees_with_finite_differences(draw):
    assert torch.autograd.gradcheck(unit_rows, (draw(3, 4).requires_grad_(),))
    assert torch.autograd.gradcheck(correlation_rows, (draw(3, 4).requires_grad_(),))


def test_unit_rows_not_longer_than_the_floor_count_as_zeros():
    rows = torch.tensor([[0.3, 0.4], [0.6, 0.8]], dtype=torch.float64)
    assert unit_rows(rows, floor=0.5000001)[0].tolist() == [0.0, 0.0]
    assert unit_rows(rows, floor=0.5000001)[1].tolist() == pytest.approx([0.6, 0.8])


def test_dot_products_of_correlation_rows_are_pearson_correlations(draw):
    a, b = draw(6, 9, seed=1), draw(6, 9, seed=2)
    mine = (correlation_rows(a) * correlation_rows(b)).sum(dim=1)
    np.testing.assert_allclose(mine, [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)], atol=1e-12)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-9, 12345.678])
@pytest.mark.parametrize("length", [3, 7, 100, 1000])
def test_a_constant_row_correlates_with_nothing_though_its_mean_is_rounded(value, length):
    assert not correlation_rows(torch.full((1, length), value)).any()


def test_a_small_variation_on_a_large_offset_is_not_taken_for_constant():
    row = torch.tensor([[1.0, 1.0001, 1.0003]])
    expected = correlation_rows(torch.tensor([[0.0, 1.0, 3.0]]))
    torch.testing.assert_close(correlation_rows(row), expected, atol=2e-3, rtol=0)  # 1.2e-7 / 1e-4 is left of float32
