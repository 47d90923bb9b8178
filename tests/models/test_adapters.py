"""Hint regressors: shapes of every case, the published layers, values by hand, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.models.adapters import HintRegressor


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((4, 8, 8), (6, 8, 8)),
        ((4, 8, 8), (6, 4, 4)),
        ((4, 4, 4), (6, 8, 8)),
        ((4, 7, 7), (6, 4, 4)),
        ((4, 32, 32), (6, 4, 4)),
        ((4, 4, 4), (6, 7, 7)),
        ((4, 4, 8), (6, 8, 4)),  # smaller one way, larger the other
        ((4, 8, 4), (6, 4, 4)),
        ((4, 1, 1), (6, 2, 2)),
        ((5,), (7,)),
        ((9, 5), (9, 7)),
    ],
)
def test_hint_regressor_gives_the_shape_of_the_teacher_and_a_gradient_to_every_weight(student, teacher):
    regressor = HintRegressor(student, teacher)
    feature = torch.randn(3, *student, requires_grad=True)
    mapped = regressor(feature)
    assert mapped.shape == (3, *teacher)
    mapped.square().sum().backward()
    assert feature.grad is not None
    assert all(parameter.grad is not None for parameter in regressor.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "weights"),
    [
        ((4, 8, 8), (6, 8, 8), 4 * 6),  # 1x1
        ((4, 8, 8), (6, 4, 4), 4 * 6 * 9),  # 3x3 with stride 2
        ((4, 4, 4), (6, 8, 8), 4 * 6 * 16),  # transposed 4x4 with stride 2
        ((4, 32, 32), (6, 4, 4), 4 * 6),  # averaged, then 1x1: no 29x29 kernel
        ((4, 4, 4), (6, 7, 7), 4 * 6),
    ],
)
def test_the_convolution_has_the_kernel_of_the_benchmarks_without_its_useless_bias(student, teacher, weights):
    regressor = HintRegressor(student, teacher)
    batch_norm = 2 * teacher[0]
    assert sum(parameter.numel() for parameter in regressor.parameters()) == weights + batch_norm


def test_a_map_of_equal_size_is_mixed_pixel_by_pixel_normalised_and_rectified():
    regressor = HintRegressor((2, 1, 2), (1, 1, 2)).eval()
    (convolution,) = (module for module in regressor.modules() if isinstance(module, nn.Conv2d))
    (batch_norm,) = (module for module in regressor.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1))
        batch_norm.running_mean.fill_(1.0)
        batch_norm.running_var.fill_(4.0)
    feature = torch.tensor([[[[9.0, 1.0]], [[2.0, 3.0]]]])
    # (9 - 4 - 1) / 2 = 2 and (1 - 6 - 1) / 2 = -3, which the ReLU cuts; the variance has 1e-5 added
    assert regressor(feature).flatten().tolist() == pytest.approx([2.0, 0.0], rel=1e-5)


def test_a_much_larger_map_is_averaged_before_the_convolution():
    regressor = HintRegressor((1, 6, 6), (1, 2, 2), relu=False).eval()
    feature = torch.arange(36.0).reshape(1, 1, 6, 6)
    (convolution,) = (module for module in regressor.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        convolution.weight.fill_(1.0)
    # the 3x3 block at the top left holds 0 1 2, 6 7 8, 12 13 14: mean 7; right + 3, below + 18
    assert regressor(feature).flatten().tolist() == pytest.approx([7.0, 10.0, 25.0, 28.0], rel=1e-4)


def test_relu_false_reaches_negative_features():
    torch.manual_seed(0)
    feature = torch.randn(8, 3, 4, 4)
    assert HintRegressor((3, 4, 4), (3, 4, 4))(feature).min() == 0
    assert HintRegressor((3, 4, 4), (3, 4, 4), relu=False)(feature).min() < 0


def test_vectors_and_tokens_are_mapped_linearly_each_by_itself():
    regressor = HintRegressor((4, 3), (4, 2))
    (linear,) = (module for module in regressor.modules() if isinstance(module, nn.Linear))
    tokens = torch.randn(5, 4, 3)
    expected = tokens @ linear.weight.T + linear.bias
    torch.testing.assert_close(regressor(tokens), expected)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((4, 8, 8), (64, 192), "student 4x8x8, teacher 64x192 .*tap pooled vectors in both"),
        ((8,), (4, 2, 2), "student 8, teacher 4x2x2 .*must be maps"),
        ((65, 192), (64, 384), "numbers of tokens: student 65x192, teacher 64x384"),
        ((), (), "student a number"),
        ((1, 2, 3, 4), (1, 2, 3, 4), "must be maps"),
    ],
)
def test_shapes_that_cannot_be_joined_are_refused_with_both_and_the_fix(student, teacher, message):
    with pytest.raises(UsageError, match=message) as caught:
        HintRegressor(student, teacher)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 4, 8, 7), (2, 5, 8, 8), (2, 4)])
def test_a_feature_of_another_shape_than_built_for_is_refused(shape):
    with pytest.raises(UsageError, match=r"got a feature of shape .* built for 4x8x8; train and test"):
        HintRegressor((4, 8, 8), (6, 4, 4))(torch.zeros(shape))
