"""Dynamic temperature against an independent float64 formula, laws, and rows of zeros."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdlab.errors import UsageError
from kdlab.losses import DynamicTemperature, SoftTargets


def formula(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        x, y = np.abs(t).max(), np.abs(s).max()
        t_t, t_s = 2 * x / (x + y) * temperature, 2 * y / (x + y) * temperature
        total += t_t * t_s * rel_entr(softmax(t / t_t), softmax(s / t_s)).sum()
    return total / len(student)


def test_dynamic_temperature_is_the_value_by_hand():
    # magnitudes 3 ln 3 and ln 3: temperatures 3 and 1 at a mean of 2; the student's probabilities are (1/2, 1/2)
    teacher = torch.tensor([[3 * np.log(3), 0.0]])
    student = torch.tensor([[np.log(3), np.log(3)]])
    # teacher softened by 3: (3/4, 1/4)
    expected = 3 * 1 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert DynamicTemperature(2.0)(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_dynamic_temperature_agrees_with_the_formula(draw, temperature):
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2, scale=5.0)
    expected = formula(student, teacher, temperature)
    assert DynamicTemperature(temperature)(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_equal_magnitudes_are_soft_targets(draw):
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2)
    student = student / student.abs().amax(1, keepdim=True) * teacher.abs().amax(1, keepdim=True)
    expected = SoftTargets(4.0)(student, teacher).item()
    assert DynamicTemperature(4.0)(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [0.01, 0.5, 3.0, 1e3])
def test_a_student_in_proportion_to_the_teacher_has_nothing_left_to_learn(draw, size):
    teacher = draw(6, 5)
    student = (size * teacher).requires_grad_()
    loss = DynamicTemperature()(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_the_largest_magnitude_counts_also_where_it_is_negative():
    # the largest logits are -1 and 2: temperatures of opposite signs if they counted
    teacher = torch.tensor([[-1.0, -4.0, -2.0]], dtype=torch.float64)
    student = torch.tensor([[2.0, -1.0, 0.0]], dtype=torch.float64)
    loss = DynamicTemperature(4.0)(student, teacher).item()
    assert loss == pytest.approx(formula(student, teacher, 4.0), rel=1e-12)
    assert loss > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_rows_of_zeros_give_finite_values_and_gradients(draw, dtype, zero):
    student, teacher = draw(3, 5, seed=1, dtype=dtype), draw(3, 5, seed=2, dtype=dtype)
    if zero in ("student", "both"):
        student = torch.zeros_like(student)
    if zero in ("teacher", "both"):
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    loss = DynamicTemperature()(student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert (loss.item() == 0) == (zero == "both")
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 100  # no gradient of 1 / eps


def test_the_gradient_of_dynamic_temperature_agrees_with_finite_differences(draw):
    teacher = draw(4, 5, seed=2)
    assert torch.autograd.gradcheck(lambda s: DynamicTemperature()(s, teacher), (draw(4, 5, seed=1).requires_grad_(),))


def test_an_impossible_temperature_is_an_error():
    with pytest.raises(UsageError, match=r"temperature is -1, .*positive"):
        DynamicTemperature(-1.0)


def test_settings_are_shown():
    assert repr(DynamicTemperature()) == "DynamicTemperature(temperature=4)"
