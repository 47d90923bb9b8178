"""Standardised soft targets against a published toy example, an independent float64 formula, and laws."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdlab.errors import UsageError
from kdlab.losses import SoftTargets, StandardizedSoftTargets
from kdlab.losses.standardized import standardize

# a study's toy examples, whose figures are those of T = 1 and the population's standard deviation
FOUR = [[1.0, 4.0, 3.0, 2.0], [1.0, 2.8, 3.0, 2.0], [0.1, 0.4, 0.3, 0.2]]  # teacher, student A, student B
TEN = [
    [1.0, 4.0, 0.5, 1.5, 7.0, 2.0, 2.5, 3.0, 3.5, 4.5],
    [1.1, 4.2, 0.6, 1.6, 6.8, 2.1, 2.6, 3.1, 3.6, 7.5],
    [0.1, 0.4, 0.05, 0.15, 0.7, 0.2, 0.25, 0.3, 0.35, 0.45],
]


def row(values):
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("logits", "plain", "standardized"),
    [(FOUR, ("0.1749", "0.3457"), ("0.1347", "0.0000")), (TEN, ("0.7192", "1.2317"), ("0.1923", "0.0000"))],
    ids=["4 classes", "10 classes"],
)
def test_the_toy_example_has_the_published_figures(logits, plain, standardized):
    teacher, *students = (row(values) for values in logits)
    assert tuple(f"{SoftTargets(1.0)(student, teacher).item():.4f}" for student in students) == plain
    loss = StandardizedSoftTargets(temperature=1.0, ddof=0)
    assert tuple(f"{loss(student, teacher).item():.4f}" for student in students) == standardized


@pytest.mark.parametrize(
    ("logits", "place", "shown"),
    [(FOUR[0], 0, "-1.34"), (FOUR[1], 0, "-1.52"), (FOUR[2], 0, "-1.34"), (TEN[0], 0, "-1.07"), (TEN[0], 9, "0.85"),
     (TEN[1], 0, "-1.02"), (TEN[1], 9, "1.91"), (TEN[2], 0, "-1.07"), (TEN[2], 9, "0.85")],
)  # fmt: skip
def test_the_standardised_logits_of_the_toy_example_are_the_published_ones(logits, place, shown):
    assert f"{standardize(row(logits), ddof=0)[0, place].item():.2f}" == shown


def test_the_sample_standard_deviation_gives_another_figure_as_in_the_authors_code():
    teacher, student, _ = (row(values) for values in FOUR)
    assert f"{StandardizedSoftTargets(1.0)(student, teacher).item():.4f}" == "0.0995"


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_standardized_soft_targets_agrees_with_the_formula(draw, ddof, temperature):
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2)
    z_s, z_t = (
        (z - z.mean(1, keepdims=True)) / (z.std(1, ddof=ddof, keepdims=True) + 1e-3)
        for z in (student.numpy(), teacher.numpy())
    )
    divergence = rel_entr(softmax(z_t / temperature, axis=1), softmax(z_s / temperature, axis=1)).sum() / 6
    loss = StandardizedSoftTargets(temperature, ddof=ddof, eps=1e-3)
    assert loss(student, teacher).item() == pytest.approx(temperature**2 * divergence, rel=1e-9)


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardised_rows_have_mean_zero_and_standard_deviation_one(draw, ddof):
    rows = standardize(draw(6, 5), ddof=ddof, eps=0.0).numpy()
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(rows.std(axis=1, ddof=ddof), 1, rtol=1e-12)


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardized_soft_targets_does_not_see_shift_or_size(draw, ddof):
    loss = StandardizedSoftTargets(2.0, ddof=ddof, eps=0.0)
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2)
    size = torch.tensor([[0.01], [0.5], [1.0], [3.0], [10.0], [1e4]], dtype=torch.float64)
    expected = loss(student, teacher).item()
    assert loss(size * student - 7, teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student, size * teacher + 100).item() == pytest.approx(expected, rel=1e-9)
    assert loss(-student, teacher).item() != pytest.approx(expected, rel=0.01)  # a negative factor turns the order


def test_the_gradient_of_standardized_soft_targets_agrees_with_finite_differences(draw):
    teacher = draw(4, 5, seed=2)
    loss = StandardizedSoftTargets(2.0, eps=0.1)
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher), (draw(4, 5, seed=1).requires_grad_(),))


@pytest.mark.parametrize("value", [0.0, 0.1, -1000.1, 3e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_constant_row_becomes_zeros_without_gradient(value, dtype):
    logits = torch.full((2, 7), value).to(dtype)
    logits[1] = torch.arange(7)
    logits.requires_grad_()
    rows = standardize(logits)
    assert not rows[0].any()
    assert rows[1, 0] < -1
    teacher = torch.arange(7.0).flip(0).repeat(2, 1)
    StandardizedSoftTargets(2.0)(logits, teacher.to(dtype)).backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()
    assert torch.isfinite(logits.grad).all()


def test_a_constant_student_is_as_far_as_uniform_probabilities(draw):
    teacher = draw(1, 5)
    p = softmax(standardize(teacher).numpy() / 2.0)
    expected = 4 * rel_entr(p, 0.2).sum()
    loss = StandardizedSoftTargets(2.0)(torch.full((1, 5), 3.0, dtype=torch.float64), teacher)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_a_small_row_on_a_large_offset_keeps_its_digits():
    offset = torch.tensor([[4096.0, 4097.0, 4100.0]])
    torch.testing.assert_close(standardize(offset), standardize(offset - 4096), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ddof": 2}, "ddof is 2, but it must be 1 .* or 0"),
        ({"eps": -1e-7}, "eps is -1e-07, but it must be .* 0 or more"),
        ({"eps": math.nan}, "eps is nan"),
        ({"temperature": 0.0}, "temperature is 0,.*positive"),
    ],
)
def test_impossible_settings_are_errors_with_value_and_fix(arguments, message):
    with pytest.raises(UsageError, match=message):
        StandardizedSoftTargets(**arguments)


def test_settings_are_shown():
    assert repr(StandardizedSoftTargets()) == "StandardizedSoftTargets(temperature=2, ddof=1, eps=1e-07)"
