"""Parameters and multiply-adds of every network against the numbers of the papers' code and the seed studies.

Parameters and CIFAR MACs: RepDistiller@b84f547 and chenyaofo/pytorch-cifar-models, measured; MNIST: layer tables of
the seed studies. A MAC is one multiply-add of a convolution or linear layer, for one image, without bias.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdlab import models

CIFAR = (3, 32, 32)
MNIST = (1, 28, 28)


class Row(NamedTuple):
    network: type[nn.Module]
    arguments: dict[str, Any]
    image: tuple[int, int, int]
    parameters: int
    macs: float | None  # as printed in the source
    digits: int = 0  # the source prints millions with so many digits; 0: exact


TABLE = [
    Row(models.ResNet20, {}, CIFAR, 278_324, 40.8, 1),
    Row(models.ResNet32, {}, CIFAR, 472_756, 69.1, 1),
    Row(models.ResNet44, {}, CIFAR, 667_188, 97.442, 3),
    Row(models.ResNet56, {}, CIFAR, 861_620, 125.8, 1),
    Row(models.ResNet110, {}, CIFAR, 1_736_564, 253.2, 1),
    Row(models.ResNet8x4, {}, CIFAR, 1_233_540, 177.1, 1),
    Row(models.ResNet32x4, {}, CIFAR, 7_433_860, 1083.0, 1),
    Row(models.ResNet50, {}, CIFAR, 23_705_252, 1298.0, 1),
    Row(models.CifarResNet, {"depth": 8}, CIFAR, 83_892, None),
    Row(models.WRN, {"depth": 16, "width": 2}, CIFAR, 703_284, 101.1, 1),
    Row(models.WRN, {"depth": 40, "width": 1}, CIFAR, 569_780, 83.3, 1),
    Row(models.WRN, {"depth": 40, "width": 2}, CIFAR, 2_255_156, 327.6, 1),
    Row(models.VGG8, {}, CIFAR, 3_965_028, 96.2, 1),
    Row(models.VGG11, {}, CIFAR, 9_277_284, None),
    Row(models.VGG13, {}, CIFAR, 9_462_180, 284.9, 1),
    Row(models.VGG16, {}, CIFAR, 14_774_436, None),
    Row(models.VGG19, {}, CIFAR, 20_086_692, None),
    Row(models.VGG11MLPHead, {}, CIFAR, 9_802_596, 153_339_904),
    # Seed 003 counts 39,047,680 with 4 operations for each of the 75,776 batch-norm entries.
    Row(models.VGG11MLPHead, {"width": 32, "hidden": (256, 128)}, CIFAR, 2_420_580, 39_047_680 - 4 * 75_776),
    Row(models.MobileNetV2, {}, CIFAR, 812_836, 6.52, 2),
    Row(models.MobileNetV2HighRes, {}, CIFAR, 1_483_524, 59.425, 3),
    Row(models.ShuffleNetV1, {}, CIFAR, 949_258, 38.7, 1),
    Row(models.ShuffleNetV2, {}, CIFAR, 1_355_528, 44.5, 1),
    Row(models.MNISTWideConv, {}, MNIST, 1_433_610, 58.51, 2),
    Row(models.MNISTNarrowConv, {}, MNIST, 20_490, 0.270, 3),
    Row(models.MNISTPooledConv, {}, MNIST, 26_698, 307_648),
    Row(models.MNISTPerceptron, {}, MNIST, 25_450, 25_408),
    Row(models.DigitsConv, {}, (1, 8, 8), 613, None),
    Row(models.DigitsConv, {"widths": (32, 64, 64)}, (1, 8, 8), 56_554, None),
    Row(models.TorchvisionModel, {"name": "mobilenet_v3_small"}, CIFAR, 1_620_356, 2.26, 2),
]


def row_name(row: Row) -> str:
    return "-".join([row.network.__name__, *(str(value) for value in row.arguments.values())])


@pytest.mark.parametrize("row", TABLE, ids=row_name)
def test_network_has_the_published_parameters_and_macs(row: Row):
    with torch.device("meta"):  # shapes only
        network = row.network(**row.arguments).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == row.parameters
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, *row.image, device="meta"))
    macs = counter.get_total_flops() / 2
    if row.macs is not None:
        assert macs == row.macs if row.digits == 0 else round(macs / 1e6, row.digits) == row.macs


@pytest.mark.parametrize("row", TABLE, ids=row_name)
def test_docstring_states_the_number_of_parameters(row: Row):
    assert f"{row.parameters:,}" in (row.network.__doc__ or "")


def test_the_table_covers_every_public_network():
    assert {row.network.__name__ for row in TABLE} | {"TimmModel", "Normalized"} == set(models.__all__)


def test_every_constructor_argument_is_explained_in_the_docstring():
    for name in models.__all__:
        network = getattr(models, name)
        explained = re.findall(
            r"^        (\w+): ", network.__doc__.partition("Args:")[2].partition("\n\n")[0], flags=re.MULTILINE
        )
        arguments = list(network.__init__.__annotations__)[:-1]  # without the return value
        assert explained == arguments, name
        assert {"num_classes", "in_channels"} <= set(arguments) or name == "Normalized", name
