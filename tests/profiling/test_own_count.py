"""Our own count of forward and backward, against hand counts that both libraries get wrong."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdlab.profiling.own_count import MultiplyAdds, attention_as_products


def forward_and_backward(network, image):
    with attention_as_products(), MultiplyAdds() as counter:
        output = network(image)
        forward = counter.macs
        output.sum().backward()
    return forward, counter.macs - forward


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_backward_of_a_grouped_convolution_costs_twice_its_forward(kind, groups):
    # 8 -> 12 channels; stride 1 keeps the map at 6x6, so both kinds take 36 positions
    conv = kind(8, 12, 3, padding=1, groups=groups)
    forward, backward = forward_and_backward(conv, torch.randn(2, 8, 6, 6, requires_grad=True))
    assert forward == 2 * 36 * 8 * 12 * 9 // groups
    assert backward == 2 * forward


def test_an_image_that_needs_no_gradient_costs_none():
    forward, backward = forward_and_backward(nn.Conv2d(3, 8, 3), torch.randn(1, 3, 6, 6))
    assert forward == backward == 16 * 8 * 27


def test_a_frozen_layer_costs_only_the_gradient_that_passes_through_it():
    network = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 11), nn.Linear(11, 3))
    network[1].requires_grad_(False)
    forward, backward = forward_and_backward(network, torch.randn(2, 5))
    assert forward == 2 * (35 + 77 + 33)
    assert backward == 2 * (35 + 77 + 33 + 33)  # weights of the first, inputs of the second, both of the third


def test_attention_costs_two_products_forward_and_four_backward():
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    forward, backward = forward_and_backward(lambda x: F.scaled_dot_product_attention(x, k, v), q)
    assert forward == 2 * 2 * 5 * 5 * 4
    assert backward == 2 * forward


def test_vectors_count_too():
    matrix, vector = torch.randn(4, 6), torch.randn(6)
    with MultiplyAdds() as counter:
        matrix.mv(vector)
        torch.dot(vector, vector)
        torch.addmv(torch.zeros(4), matrix, vector)
    assert counter.macs == 24 + 6 + 24


def test_the_attention_kernels_are_as_before_afterwards():
    q = torch.randn(1, 2, 5, 4)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        with attention_as_products():
            assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.mha.get_fastpath_enabled()
        with MultiplyAdds() as counter:
            F.scaled_dot_product_attention(q, q, q)
    assert counter.macs == 0  # the fused kernel again


def test_operators_run_as_they_are_for_tensors_of_a_subclass():
    class Refusing(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.mm:
                return super().__torch_function__(func, types, args, kwargs or {})
            raise AssertionError(f"{func} was asked for below the level of torch functions")

    with torch._C.DisableTorchFunctionSubclass():
        matrix = torch.ones(2, 3).as_subclass(Refusing)
    with MultiplyAdds() as counter:
        torch.mm(matrix, torch.ones(3, 5))
    assert counter.macs == 30
