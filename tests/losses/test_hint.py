"""The hint loss is a mean squared difference of equal shapes."""

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import HintLoss


def test_the_hint_loss_is_the_value_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 5.0], [0.0, 1.0]])
    assert HintLoss()(student, teacher).item() == (9 + 1) / 4


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4, 5)])
def test_the_hint_loss_agrees_with_the_formula(draw, shape):
    student, teacher = draw(*shape, seed=1), draw(*shape, seed=2)
    expected = ((student.numpy() - teacher.numpy()) ** 2).mean()
    assert HintLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_of_the_hint_loss_is_twice_the_mean_difference(draw):
    student, teacher = draw(3, 4, seed=1).requires_grad_(), draw(3, 4, seed=2)
    HintLoss()(student, teacher).backward()
    np.testing.assert_allclose(student.grad, 2 * (student.detach() - teacher) / 12, rtol=1e-12)


@pytest.mark.parametrize("other", [(3, 5), (3, 4, 1, 1), (1, 4)])
def test_shapes_that_differ_are_an_error_and_are_not_broadcast(draw, other):
    with pytest.raises(UsageError) as caught:
        HintLoss()(draw(3, 4), draw(*other))
    message = str(caught.value)
    assert f"student features of shape [3, 4] and teacher features of shape {list(other)}" in message
    assert "regressor" in message
    assert "\n" not in message


def test_half_precision_squares_do_not_overflow():
    student = torch.full((2, 3), 3e4, dtype=torch.float16, requires_grad=True)
    loss = HintLoss()(student, -student.detach())
    loss.backward()
    assert loss.item() == pytest.approx(3.6e9, rel=1e-3)
    assert torch.isfinite(student.grad).all()
