"""The networks of the seed studies reproduce Keras' padding and start, and name the image size they need."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.models import MNISTNarrowConv, MNISTPerceptron, MNISTPooledConv, MNISTWideConv
from kdlab.models.mnist import SameConv2d, SameMaxPool2d


def test_strided_same_convolution_pads_bottom_and_right_of_an_even_image():
    convolution = SameConv2d(1, 1, 3, stride=2, bias=False)
    nn.init.ones_(convolution.weight)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    # By hand: the windows start at rows and columns 0 and 2; row and column 4 are zeros.
    # 0+1+2+4+5+6+8+9+10 = 45, 2+3+6+7+10+11 = 39, 8+9+10+12+13+14 = 66, 10+11+14+15 = 50
    assert convolution(image)[0, 0].tolist() == [[45.0, 39.0], [66.0, 50.0]]


def test_strided_same_convolution_pads_an_odd_image_on_both_sides():
    torch.manual_seed(0)
    same = SameConv2d(2, 3, 3, stride=2)
    torch_padded = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    torch_padded.load_state_dict(same.state_dict())
    image = torch.randn(1, 2, 7, 9)
    assert torch.equal(same(image), torch_padded(image))


def test_same_max_pool_with_stride_1_looks_right_and_down_and_padding_never_wins():
    image = torch.tensor([[[[-5.0, -3.0], [-2.0, -4.0]]]])
    # By hand: window (0, 0) holds all four, (0, 1) holds -3 and -4, (1, 0) holds -2 and -4, (1, 1) only -4.
    assert SameMaxPool2d(2, stride=1)(image)[0, 0].tolist() == [[-2.0, -3.0], [-2.0, -4.0]]


@pytest.mark.parametrize("network", [MNISTWideConv, MNISTNarrowConv])
def test_strided_nets_have_the_maps_of_the_study(network: type[MNISTWideConv] | type[MNISTNarrowConv]):
    net = network()
    shapes: list[list[int]] = []
    for path in ("conv1", "pool", "conv2"):
        net.get_submodule(path).register_forward_hook(lambda module, args, out: shapes.append(list(out.shape[2:])))
    net(torch.zeros(1, 1, 28, 28))
    assert shapes == [[14, 14], [14, 14], [7, 7]]


def test_nothing_non_linear_follows_the_second_convolution_of_the_strided_nets():
    torch.manual_seed(0)
    net = MNISTNarrowConv()
    tail = nn.Sequential(*list(net.children())[3:])
    one, two = torch.randn(2, 1, 16, 14, 14).unbind()
    zero = torch.zeros_like(one)
    sums = [tail(features) for features in (one + two, one, two, zero)]
    # affine: f(a + b) = f(a) + f(b) - f(0); float32 sums of 1,568 products
    torch.testing.assert_close(sums[0], sums[1] + sums[2] - sums[3], rtol=1e-4, atol=1e-4)


def test_weights_start_glorot_uniform_with_zero_biases_as_in_keras():
    torch.manual_seed(0)
    net = MNISTPerceptron()
    layer = net.get_submodule("hidden.0")
    bound = math.sqrt(6 / (784 + 32))
    assert isinstance(layer, nn.Linear)
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert not layer.bias.any()


@pytest.mark.parametrize("network", [MNISTWideConv, MNISTNarrowConv, MNISTPooledConv, MNISTPerceptron])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (1, 28, 27)])
def test_image_of_another_shape_is_refused_with_both_shapes(network: type[nn.Module], shape: tuple[int, int, int]):
    with pytest.raises(
        UsageError, match=rf"{network.__name__} got .*{shape[1]}, {shape[2]}\] but is built for \[1, 28"
    ):
        network()(torch.zeros(1, *shape))


@pytest.mark.parametrize("network", [MNISTWideConv, MNISTNarrowConv, MNISTPooledConv, MNISTPerceptron])
@pytest.mark.parametrize("size", [8, 27, 32])
def test_image_size_argument_fits_the_last_layers(network: type[nn.Module], size: int):
    net = network(num_classes=5, in_channels=2, image_size=size)
    assert net(torch.zeros(1, 2, size, size)).shape == (1, 5)
