"""Attention transfer against the value by hand, an independent float64 formula, and laws."""

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import AttentionLoss


def attention(features):
    maps = (np.asarray(features, dtype=np.float64) ** 2).mean(axis=1).reshape(len(features), -1)
    return maps / np.sqrt((maps**2).sum(axis=1, keepdims=True))


def test_the_attention_loss_is_the_value_by_hand():
    # one sample, 1 x 2 pixels: attention (3, 4)/5 and (1, 0)
    student = torch.tensor([[[[3.0**0.5, 2.0]]]])
    teacher = torch.tensor([[[[5.0, 0.0]], [[1.0, 0.0]]]])
    assert AttentionLoss()(student, teacher).item() == pytest.approx((0.4**2 + 0.8**2) / 2, rel=1e-6)


def test_the_attention_loss_agrees_with_the_formula(draw):
    student, teacher = draw(3, 4, 5, 6, seed=1), draw(3, 7, 5, 6, seed=2)
    expected = ((attention(student) - attention(teacher)) ** 2).mean()
    assert AttentionLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_the_features_of_the_larger_map_are_average_pooled(draw, larger):
    small, large = draw(3, 4, 2, 3, seed=1), draw(3, 5, 4, 6, seed=2)
    pooled = large.numpy().reshape(3, 5, 2, 2, 3, 2).mean(axis=(3, 5))
    expected = ((attention(small) - attention(pooled)) ** 2).mean()
    pair = (large, small) if larger == "student" else (small, large)
    assert AttentionLoss()(*pair).item() == pytest.approx(expected, rel=1e-12)


def test_a_map_that_is_taller_and_narrower_meets_in_the_middle(draw):
    tall, wide = draw(3, 4, 4, 3, seed=1), draw(3, 4, 2, 6, seed=2)
    pooled_tall = tall.numpy().reshape(3, 4, 2, 2, 3).mean(axis=3)
    pooled_wide = wide.numpy().reshape(3, 4, 2, 3, 2).mean(axis=4)
    expected = ((attention(pooled_tall) - attention(pooled_wide)) ** 2).mean()
    assert AttentionLoss()(tall, wide).item() == pytest.approx(expected, rel=1e-12)


def test_the_attention_loss_does_not_see_size_sign_or_order_of_channels(draw):
    student, teacher, loss = draw(3, 4, 5, 6, seed=1), draw(3, 7, 5, 6, seed=2), AttentionLoss()
    expected = loss(student, teacher).item()
    size = torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64)[:, None, None, None]
    assert loss(size * student, teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student, -3 * teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student.flip(1), teacher).item() == pytest.approx(expected, rel=1e-9)
    assert loss(teacher, student).item() == pytest.approx(expected, rel=1e-9)
    assert loss(student.flip(3), teacher).item() != pytest.approx(expected, rel=0.01)  # it does see where


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_map_of_zeros_is_finite_and_gets_no_gradient(draw, dtype):
    student, teacher = draw(3, 4, 5, 6, seed=1), draw(3, 4, 5, 6, seed=2, dtype=dtype)
    student[0] = 0
    student = student.to(dtype).requires_grad_()
    loss = AttentionLoss()(student, teacher)
    loss.backward()
    rest = ((attention(student.detach().double()[1:]) - attention(teacher.double()[1:])) ** 2).sum()
    assert loss.item() == pytest.approx((1 + rest) / 90, rel=1e-3)  # the zeros are 1 away from a map of length 1
    assert torch.isfinite(student.grad).all()
    assert not student.grad[0].any()
    assert student.grad[1:].any()
    assert AttentionLoss()(torch.zeros_like(teacher), torch.zeros_like(teacher)).item() == 0


def test_the_gradient_of_the_attention_loss_agrees_with_finite_differences(draw):
    teacher = draw(2, 3, 2, 2, seed=2)
    student = draw(2, 2, 4, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: AttentionLoss()(s, teacher), (student,))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_vectors_have_no_map_to_look_at(draw, role):
    pair = {"student": draw(3, 4, 5, 6), "teacher": draw(3, 4, 5, 6)} | {role: draw(3, 4)}
    with pytest.raises(UsageError, match=rf"got {role} features of shape \[3, 4\], .*before the pooling") as caught:
        AttentionLoss()(**pair)
    assert "\n" not in str(caught.value)
