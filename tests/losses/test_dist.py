"""DIST against numpy's correlations, laws, and rows that do not vary."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kdlab.errors import UsageError
from kdlab.losses import DIST


def formula(student, teacher, tau):
    """(mean of 1 - correlation over rows, the same over columns), times tau^2."""
    p_s, p_t = (softmax(np.asarray(z, dtype=np.float64) / tau, axis=1) for z in (student, teacher))
    rows = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in zip(p_s, p_t, strict=True)])
    columns = np.mean([1 - np.corrcoef(s, t)[0, 1] for s, t in zip(p_s.T, p_t.T, strict=True)])
    return tau**2 * rows, tau**2 * columns


def log(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def test_dist_is_the_value_by_hand():
    student = log([[3 / 6, 2 / 6, 1 / 6], [0.2, 0.5, 0.3]])
    teacher = log([[2 / 6, 3 / 6, 1 / 6], [0.2, 0.3, 0.5]])
    # rows about their means: (1, 0, -1) and (0, 1, -1) correlate with 1/2; (-4, 5, -1) and (-4, -1, 5) with 6/42
    assert DIST(1, 0, 1)(student, teacher).item() == pytest.approx((1 / 2 + 6 / 7) / 2, rel=1e-12)
    # columns of two samples correlate with 1 or -1: both fall, the second class rises and falls, both rise
    assert DIST(0, 1, 1)(student, teacher).item() == pytest.approx((0 + 2 + 0) / 3, rel=1e-12)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0, 20.0])
def test_dist_agrees_with_the_formula(draw, tau):
    student, teacher = draw(7, 5, seed=1), draw(7, 5, seed=2)
    rows, columns = formula(student, teacher, tau)
    assert DIST(1, 0, tau)(student, teacher).item() == pytest.approx(rows, rel=1e-8)
    assert DIST(0, 1, tau)(student, teacher).item() == pytest.approx(columns, rel=1e-8)
    assert DIST(2, 3, tau)(student, teacher).item() == pytest.approx(2 * rows + 3 * columns, rel=1e-8)


def test_dist_does_not_see_a_shift_of_logits_nor_who_is_student(draw):
    student, teacher, loss = draw(7, 5, seed=1), draw(7, 5, seed=2), DIST()
    expected = loss(student, teacher).item()
    assert loss(student + 50, teacher - 3).item() == pytest.approx(expected, rel=1e-8)
    assert loss(teacher, student).item() == pytest.approx(expected, rel=1e-12)


def test_dist_does_not_see_an_affine_change_of_the_probabilities_in_a_row():
    teacher = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7]], dtype=torch.float64)
    student = 0.4 * teacher + 0.6 / 3
    assert DIST(1, 0, 1)(student.log(), teacher.log()).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_one_hot_rows_give_finite_values_and_gradients(dtype):
    # probabilities are exactly 0 and 1, and no sample of this batch belongs to the last class
    teacher = (1e4 * torch.eye(4)[:3]).to(dtype)
    student = (1e4 * torch.eye(4)[[1, 2, 0]]).to(dtype).requires_grad_()
    loss = DIST(tau=1.0)(student, teacher)
    loss.backward()
    # a row: correlation of two different unit vectors of length 4 is -1/3; a column, of length 3, -1/2, and the last 0
    assert loss.item() == pytest.approx((1 + 1 / 3) + (3 * 1.5 + 0) / 4, rel=1e-5)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_where_the_teacher_does_not_vary_there_is_nothing_to_match(draw, dtype):
    teacher = torch.full((4, 5), 0.3).to(dtype)
    student = draw(4, 5, dtype=dtype).requires_grad_()
    loss = DIST()(student, teacher)
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_student_that_does_not_vary_correlates_with_nothing_and_gets_no_gradient(draw, dtype):
    student = torch.full((4, 5), 0.3).to(dtype).requires_grad_()
    loss = DIST(beta=1, gamma=2, tau=4)(student, draw(4, 5, dtype=dtype))
    loss.backward()
    assert loss.item() == pytest.approx(16 * (1 + 2), rel=1e-6)
    assert not student.grad.any()


def test_one_constant_row_does_not_disturb_the_others(draw):
    student, teacher = draw(4, 5, seed=1), draw(4, 5, seed=2)
    rows, _ = formula(student[1:], teacher[1:], 4.0)
    student[0] = 7.0
    student.requires_grad_()
    loss = DIST(gamma=0)(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx((16 + 3 * rows) / 4, rel=1e-9)
    assert not student.grad[0].any()
    assert student.grad[1:].abs().min() > 0


def test_classes_improbable_in_all_samples_count_as_the_formula_says(draw):
    # probabilities near 1e-12, which 1e-8 in the denominator would wipe out
    student, teacher = draw(7, 5, seed=1), draw(7, 5, seed=2)
    student[:, 4] -= 30
    teacher[:, 4] -= 30
    assert DIST(0, 1, 1)(student, teacher).item() == pytest.approx(formula(student, teacher, 1.0)[1], rel=1e-8)
    in_float32 = DIST(0, 1, 1)(student.float(), teacher.float()).item()
    assert in_float32 == pytest.approx(formula(student, teacher, 1.0)[1], rel=1e-4)


def test_the_gradient_of_dist_agrees_with_finite_differences(draw):
    teacher = draw(4, 5, seed=2)
    assert torch.autograd.gradcheck(lambda s: DIST()(s, teacher), (draw(4, 5, seed=1).requires_grad_(),))


def test_one_sample_relates_to_no_other(draw):
    with pytest.raises(UsageError, match=r"DIST \(with gamma > 0\) .*this batch has 1; set data.batch_size"):
        DIST()(draw(1, 5, seed=1), draw(1, 5, seed=2))
    twice = draw(1, 5, seed=1).repeat(2, 1), draw(1, 5, seed=2).repeat(2, 1)
    expected = DIST(gamma=0)(*twice).item()
    assert DIST(gamma=0)(draw(1, 5, seed=1), draw(1, 5, seed=2)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta is -1, but it must be .*0 or more"),
        ({"gamma": math.nan}, "gamma is nan"),
        ({"tau": 0.0}, "temperature is 0, .*positive"),
    ],
)
def test_impossible_settings_are_errors_with_value_and_fix(arguments, message):
    with pytest.raises(UsageError, match=message):
        DIST(**arguments)


def test_settings_are_shown():
    assert repr(DIST()) == "DIST(beta=1, gamma=1, tau=4)"
