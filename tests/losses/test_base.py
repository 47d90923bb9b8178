import math

import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import FeatureLoss, LogitLoss, SoftTargets
from kdlab.losses.base import in_float32, nonnegative, without_autocast


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


def test_a_feature_loss_without_a_formula_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        FeatureLoss()


def test_a_feature_loss_compares_in_float32_where_autocast_is_off():
    class Product(FeatureLoss):
        def compare(self, student, teacher):
            assert student.dtype == teacher.dtype == torch.float32
            return torch.mm(student, teacher).sum()

    student, teacher = torch.full((1, 1), 300.0, dtype=torch.float16), torch.full((1, 1), 301.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Product()(student, teacher).item() == 90300.0  # more than float16 holds, more digits than bfloat16 has


def test_without_autocast_ends_with_its_block():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with without_autocast(torch.ones(1)):
            assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.float32
        assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype == torch.bfloat16


@pytest.mark.parametrize("value", [0, 0.5, 1e6])
def test_a_factor_is_taken_as_it_is(value):
    assert nonnegative("beta", value) == value


@pytest.mark.parametrize(("value", "shown"), [(-0.5, "-0.5"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_number_that_is_no_factor_is_an_error_with_name_and_value(value, shown):
    with pytest.raises(UsageError, match=f"beta is {shown}, but it must be a finite number, 0 or more"):
        nonnegative("beta", value)
