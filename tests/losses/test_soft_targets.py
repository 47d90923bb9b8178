"""Soft targets against vectors computed by hand, an independent float64 formula, and laws."""

import math

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import SoftTargets
from kdlab.losses.base import positive_temperature

TEMPERATURES = (0.5, 1.0, 4.0, 20.0, 100.0)


def softmax(z):
    """In float64, row by row, written out."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def formula(student, teacher, temperature):
    """T^2 / B sum_i sum_k q_ik (ln q_ik - ln p_ik), q of the teacher, p of the student."""
    q = softmax(np.asarray(teacher, dtype=np.float64) / temperature)
    p = softmax(np.asarray(student, dtype=np.float64) / temperature)
    return temperature**2 * (q * (np.log(q) - np.log(p))).sum() / len(q)


def logits(rows=6, classes=5, seed=0, scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)).to(dtype)


def log_odds(*probabilities):
    """Logits of these probabilities (up to a shift), at T = 1."""
    return torch.tensor([[math.log(p) for p in probabilities]], dtype=torch.float64)


def test_soft_targets_of_one_half_and_one_quarter_is_the_value_by_hand():
    # teacher (1/2, 1/2), student (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3 = 1/2 ln 4/3
    loss = SoftTargets(1.0)(log_odds(0.25, 0.75), log_odds(0.5, 0.5))
    assert loss.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)


def test_soft_targets_is_the_divergence_from_the_teacher_not_from_the_student():
    student, teacher = log_odds(0.25, 0.75), log_odds(0.5, 0.5)
    # the other direction: 1/4 ln 1/2 + 3/4 ln 3/2 = 0.1308, not 0.1438
    swapped = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert SoftTargets(1.0)(teacher, student).item() == pytest.approx(swapped, rel=1e-12)
    assert SoftTargets(1.0)(student, teacher).item() != pytest.approx(swapped, rel=0.05)


def test_soft_targets_at_temperature_two_is_the_value_by_hand():
    # logits 2 ln p at T = 2 soften to p again, and T^2 = 4 stands before the divergence
    loss = SoftTargets(2.0)(2 * log_odds(0.25, 0.75), 2 * log_odds(0.5, 0.5))
    assert loss.item() == pytest.approx(4 * 0.5 * math.log(4 / 3), rel=1e-12)


def test_soft_targets_is_the_mean_over_the_batch_not_over_batch_and_classes():
    student, teacher = log_odds(0.25, 0.75), log_odds(0.5, 0.5)
    twice = SoftTargets(1.0)(student.repeat(2, 1), teacher.repeat(2, 1))
    assert twice.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)
    half = SoftTargets(1.0)(torch.cat([student, teacher]), teacher.repeat(2, 1))  # the second row adds nothing
    assert half.item() == pytest.approx(0.25 * math.log(4 / 3), rel=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_agrees_with_the_formula(temperature):
    student, teacher = logits(seed=1), logits(seed=2)
    expected = formula(student, teacher, temperature)
    # float64 against float64: only the order of sums differs; relative to terms near 1, times T^2
    assert SoftTargets(temperature)(student, teacher).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_in_float32_agrees_with_the_formula(temperature):
    student, teacher = logits(seed=1, dtype=torch.float32), logits(seed=2, dtype=torch.float32)
    # float32 has 1.2e-7 relative; a divergence is a small difference of logarithms, which costs about T more digits:
    # errors of 1e-7 in each of two log-probabilities, times T^2
    tolerance = 1e-5 * formula(student, teacher, temperature) + 2.4e-7 * temperature**2
    assert abs(SoftTargets(temperature)(student, teacher).item() - formula(student, teacher, temperature)) < tolerance


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_is_zero_for_equal_logits(temperature):
    equal = logits(dtype=torch.float32, scale=100.0)
    assert SoftTargets(temperature)(equal, equal.clone()).item() == 0.0  # the same bits on both sides of a difference


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_does_not_see_a_shift_of_either_row(temperature):
    student, teacher = logits(seed=1), logits(seed=2)
    shifts = torch.tensor([[-300.0], [-1.0], [0.0], [2.0], [7.5], [1000.0]], dtype=torch.float64)
    loss = SoftTargets(temperature)
    expected = loss(student, teacher).item()
    # float64 keeps 13 digits of logits near 1000; the division by T shrinks the error, T^2 stands before it
    assert loss(student + shifts, teacher).item() == pytest.approx(expected, rel=1e-8)
    assert loss(student, teacher + shifts).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_soft_targets_is_positive_where_the_distributions_differ(temperature):
    assert SoftTargets(temperature)(logits(seed=1), logits(seed=2)).item() > 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradient_of_soft_targets_is_t_over_b_times_the_difference_of_probabilities(temperature):
    student, teacher = logits(seed=1).requires_grad_(), logits(seed=2)
    SoftTargets(temperature)(student, teacher).backward()
    p_s = softmax(student.detach().numpy() / temperature)
    p_t = softmax(teacher.numpy() / temperature)
    np.testing.assert_allclose(student.grad.numpy(), temperature / len(p_s) * (p_s - p_t), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_soft_targets_keeps_its_size_when_the_temperature_is_large():
    # for T -> inf it tends to (s - t) / (K B), with centred rows; first-order error in 1 / T
    student, teacher = logits(seed=1, scale=1.0).requires_grad_(), logits(seed=2, scale=1.0)
    difference = (student - teacher).detach()
    limit = (difference - difference.mean(dim=1, keepdim=True)) / difference.numel()
    (gradient,) = torch.autograd.grad(SoftTargets(100.0)(student, teacher), student)
    assert gradient.norm().item() == pytest.approx(limit.norm().item(), rel=0.02)


def test_the_gradient_of_soft_targets_agrees_with_finite_differences():
    assert torch.autograd.gradcheck(
        lambda student: SoftTargets(4.0)(student, logits(seed=2)), (logits(seed=1).requires_grad_(),)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_soft_targets_and_its_gradient_stay_finite(dtype, temperature, size):
    student = (size * torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 1.0]])).to(dtype).requires_grad_()
    teacher = (size * torch.tensor([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.5], [1.0, 1.0, -1.0]])).to(dtype)
    loss = SoftTargets(temperature)(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert loss > 0
    assert student.grad.dtype == dtype
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_soft_targets_of_half_precision_logits_is_that_of_the_same_logits_in_float32(dtype):
    student, teacher = logits(seed=1, dtype=dtype), logits(seed=2, dtype=dtype)
    assert SoftTargets(20.0)(student, teacher).equal(SoftTargets(20.0)(student.float(), teacher.float()))


def test_soft_targets_is_the_same_under_autocast():
    student, teacher = logits(seed=1, dtype=torch.float32), logits(seed=2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = SoftTargets(20.0)(student, teacher)
    assert under_autocast.equal(SoftTargets(20.0)(student, teacher))


def test_soft_targets_is_a_scalar_without_parameters_that_ignores_labels():
    loss = SoftTargets(3.0)
    student, teacher = logits(seed=1), logits(seed=2)
    with_labels = loss(student, teacher, torch.arange(6) % 5)
    assert with_labels.shape == ()
    assert with_labels.equal(loss(student, teacher))
    assert not list(loss.parameters())
    assert "temperature=3" in repr(loss)


@pytest.mark.parametrize(
    ("temperature", "shown"), [(0.0, "0"), (-1.0, "-1"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_a_temperature_that_cannot_divide_is_an_error_with_its_value_and_the_fix(temperature, shown):
    for build in (SoftTargets, positive_temperature):
        with pytest.raises(UsageError, match=f"temperature is {shown},.*must be a positive number.*usual") as caught:
            build(temperature)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [1e-3, 1, 4.0, 1e6])
def test_a_positive_temperature_is_taken_as_it_is(temperature):
    assert positive_temperature(temperature) == temperature
    assert SoftTargets(temperature).temperature == temperature
