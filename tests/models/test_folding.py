"""Folded batch norms: the same answers with fewer layers, or the network itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from kdlab.models import VGG8, WRN, DigitsConv, MobileNetV2, ResNet20, ShuffleNetV1
from kdlab.models.folding import Folded
from kdlab.weights import digest


def with_random_statistics(network: nn.Module) -> nn.Module:
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for tensor in (part.running_mean, part.bias):
                nn.init.uniform_(tensor, -1, 1)
            for tensor in (part.running_var, part.weight):
                nn.init.uniform_(tensor, 0.5, 2)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())


def test_weights_are_scaled_and_biases_shifted_as_by_hand():
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.75)).eval()
    values = {"0.weight": 2, "0.bias": 1, "1.running_mean": 5, "1.running_var": 3.25, "1.weight": 6, "1.bias": -1}
    for name, value in values.items():
        network.state_dict()[name].fill_(value)

    folded = Folded(network, torch.ones(1, 1))

    # sqrt(3.25 + 0.75) = 2, so y = (2 x + 1 - 5) / 2 * 6 - 1 = 6 x - 13
    weight, bias = folded.network.parameters()
    assert (weight.item(), bias.item()) == pytest.approx((6.0, -13.0))
    assert folded(torch.full((1, 1), 4.0)).item() == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (ResNet20, 0),
        (VGG8, 0),
        (MobileNetV2, 0),
        (ShuffleNetV1, 0),
        (partial(WRN, depth=10, width=1), 4),  # before a convolution there is nothing to fold into
    ],
)
def test_a_folded_network_answers_alike_with_fewer_layers(make: Callable[[], nn.Module], left: int):
    network = with_random_statistics(make())
    before = digest(network)
    image = torch.randn(4, 3, 32, 32)

    folded = Folded(network, image[:1])

    assert (norms(folded.network), digest(network)) == (left, before)
    expected = network(image).detach()
    assert not folded(image).equal(expected)  # or nothing was folded
    torch.testing.assert_close(folded(image), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_order_in_memory_stays():
    network = with_random_statistics(DigitsConv()).to(memory_format=torch.channels_last)
    folded = Folded(network, torch.zeros(1, 1, 8, 8))
    convolutions = [part for part in folded.network.modules() if isinstance(part, nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)


class Branching(nn.Sequential):
    """What torch.fx cannot follow."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image if image.mean() > 0 else -image)


class OtherTypes(nn.Sequential):
    """What runs in float32 only."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.float())


class Twice(nn.Sequential):
    """A convolution used twice, of which only one is followed by a batch norm: scaling its weights changes both."""

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self[1](self[0](image)) + self[0](image + 1)
        return logits


class Broken(nn.Sequential):
    """What answers NaN."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * torch.nan


@pytest.mark.parametrize("kind", [Branching, OtherTypes, Twice, Broken])
def test_where_folding_fails_or_would_change_the_answers_the_network_answers_itself(kind: type[nn.Sequential]):
    network = with_random_statistics(kind(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    image = torch.rand(2, 1, 3, 3)
    folded = Folded(network, image)
    assert folded.network is network
    torch.testing.assert_close(folded(image), network(image), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(2, 2),
        nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double(),
    ],
    ids=["no batch norm", "batch norm first", "float64"],
)
def test_without_anything_to_fold_there_is_no_copy(network: nn.Module):
    image = torch.rand(1, 2, dtype=next(network.parameters()).dtype)
    assert Folded(network.eval(), image).network is network
