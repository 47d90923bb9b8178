"""Similarity preservation against the value by hand, an independent float64 formula, and laws."""

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import SimilarityLoss


def similarities(features):
    rows = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    gram = rows @ rows.T
    return gram / np.linalg.norm(gram, axis=1, keepdims=True)


def rotation(draw, size):
    return torch.linalg.qr(draw(size, size, seed=9)).Q


def test_the_similarity_loss_is_the_value_by_hand():
    # orthogonal samples: rows (1, 0), (0, 1); equal samples: rows (1, 1)/sqrt 2
    student, teacher = torch.eye(2), torch.ones(2, 3)
    side = 0.5**0.5
    expected = 2 * ((1 - side) ** 2 + side**2) / 4
    assert SimilarityLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("student_shape", [(5, 8), (5, 2, 3, 4)])
def test_the_similarity_loss_agrees_with_the_formula(draw, student_shape):
    student, teacher = draw(*student_shape, seed=1), draw(5, 3, 2, 2, seed=2)
    expected = ((similarities(student) - similarities(teacher)) ** 2).sum() / 25
    assert SimilarityLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_the_similarity_loss_does_not_see_size_or_rotation(draw):
    student, teacher, loss = draw(5, 8, seed=1), draw(5, 6, seed=2), SimilarityLoss()
    expected = loss(student, teacher).item()
    assert loss(1e-4 * student, 100 * teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student @ rotation(draw, 8), teacher @ rotation(draw, 6)).item() == pytest.approx(expected, rel=1e-9)
    assert loss(teacher, student).item() == pytest.approx(expected, rel=1e-12)
    assert loss(student.flip(0), teacher).item() != pytest.approx(expected, rel=0.01)  # it does see who is who


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_sample_of_zeros_is_finite_and_gets_no_gradient_of_one_over_eps(draw, dtype):
    student, teacher = draw(5, 8, seed=1), draw(5, 6, seed=2, dtype=dtype)
    student[0] = 0
    student = student.to(dtype).requires_grad_()
    loss = SimilarityLoss()(student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad.abs().max() < 10
    zeros = torch.zeros_like(teacher, requires_grad=True)
    SimilarityLoss()(zeros, teacher).backward()
    assert not zeros.grad.any()


def test_the_gradient_of_the_similarity_loss_agrees_with_finite_differences(draw):
    teacher = draw(4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda s: SimilarityLoss()(s, teacher), (draw(4, 5, seed=1).requires_grad_(),))


def test_one_sample_relates_to_no_other(draw):
    with pytest.raises(UsageError, match=r"SimilarityLoss relates .* this batch has 1; set data.batch_size") as caught:
        SimilarityLoss()(draw(1, 8), draw(1, 8))
    assert "\n" not in str(caught.value)
