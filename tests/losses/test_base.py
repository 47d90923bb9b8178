import pytest
import torch

from kdlab.losses import LogitLoss, SoftTargets
from kdlab.losses.base import in_float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_float32_widens_half_precision_without_changing_a_value(dtype):
    half = torch.tensor([1.5, -3.0, 1e4]).to(dtype)
    widened = in_float32(half)
    assert widened.dtype == torch.float32
    assert widened.equal(half.to(torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_in_float32_leaves_full_precision_as_it_is(dtype):
    logits = torch.tensor([1.0, 2.0], dtype=dtype)
    assert in_float32(logits) is logits


def test_in_float32_lets_gradients_through():
    half = torch.ones(3, dtype=torch.float16, requires_grad=True)
    in_float32(half).sum().backward()
    assert half.grad.tolist() == [1.0, 1.0, 1.0]


def test_a_logit_loss_without_a_formula_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        LogitLoss()
    assert issubclass(SoftTargets, LogitLoss)
