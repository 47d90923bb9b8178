"""Probabilistic knowledge transfer against the value by hand, an independent float64 formula, and laws."""

import math

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import PKTLoss


def neighbours(features):
    rows = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    kernel = (rows @ rows.T + 1) / 2
    return kernel / kernel.sum(axis=1, keepdims=True)


def formula(student, teacher, eps):
    p, q = neighbours(teacher), neighbours(student)
    return (p * np.log((p + eps) / (q + eps))).mean()


def rotation(draw, size):
    return torch.linalg.qr(draw(size, size, seed=9)).Q


def test_the_pkt_loss_is_the_value_by_hand():
    # orthogonal samples: kernel 1, 1/2, so (2/3, 1/3); equal samples: (1/2, 1/2); two rows alike, mean of four
    student, teacher = torch.eye(2), torch.ones(2, 3)
    expected = 2 * (0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2)) / 4
    assert PKTLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("student_shape", [(5, 8), (5, 2, 3, 4)])
@pytest.mark.parametrize("eps", [1e-7, 1e-2])
def test_the_pkt_loss_agrees_with_the_formula(draw, student_shape, eps):
    student, teacher = draw(*student_shape, seed=1), draw(5, 3, 2, 2, seed=2)
    assert PKTLoss(eps)(student, teacher).item() == pytest.approx(formula(student, teacher, eps), rel=1e-10)


def test_the_pkt_loss_does_not_see_size_or_rotation(draw):
    student, teacher, loss = draw(5, 8, seed=1), draw(5, 6, seed=2), PKTLoss()
    expected = loss(student, teacher).item()
    size = torch.tensor([[1e-3], [1.0], [2.0], [50.0], [1e4]], dtype=torch.float64)  # each sample its own
    assert loss(size * student, teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student, size * teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student @ rotation(draw, 8), teacher @ rotation(draw, 6)).item() == pytest.approx(expected, rel=1e-9)
    assert loss(teacher, student).item() != pytest.approx(expected, rel=1e-6)  # a divergence has a direction


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_opposite_samples_and_samples_of_zeros_are_finite(draw, dtype):
    student, teacher = draw(5, 64, seed=1), draw(5, 64, seed=2)
    student[1], student[2] = -student[0], 0
    teacher[3] = -teacher[0]
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    loss = PKTLoss()(student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert not student.grad[2].any()


def test_cosines_rounded_below_minus_one_do_not_make_the_logarithm_undefined():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 512, generator=generator)
    unit = rows / rows.norm(dim=1, keepdim=True)
    assert (unit * -unit).sum(dim=1).min() < -1  # rounding does that
    for row in rows:
        assert torch.isfinite(PKTLoss(eps=1e-9)(torch.stack([row, -row]), torch.stack([row, row])))
        assert torch.isfinite(PKTLoss(eps=1e-9)(torch.stack([row, row]), torch.stack([row, -row])))


def test_the_gradient_of_the_pkt_loss_agrees_with_finite_differences(draw):
    teacher = draw(4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda s: PKTLoss()(s, teacher), (draw(4, 5, seed=1).requires_grad_(),))


def test_one_sample_relates_to_no_other(draw):
    with pytest.raises(UsageError, match=r"PKTLoss relates .* this batch has 1; set data.batch_size"):
        PKTLoss()(draw(1, 8), draw(1, 8))


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, 1.0])
def test_an_impossible_eps_is_an_error(eps):
    with pytest.raises(UsageError, match=f"eps is {eps:g}, .*for example 1e-7"):
        PKTLoss(eps)


def test_settings_are_shown():
    assert repr(PKTLoss()) == "PKTLoss(eps=1e-07)"
