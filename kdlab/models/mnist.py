"""The MNIST networks of the seed studies, layer by layer, with Keras' padding and initialisation.

`MNISTWideConv` and `MNISTNarrowConv` are the teacher and the student of the studies on "Effects of alpha" (seeds
000 and 001), which took them from the Keras tutorial "Knowledge Distillation" (Borup 2020). `MNISTPooledConv` and
`MNISTPerceptron` are those of seed 004.

Modules to tap: ``conv1``, ``activation``, ``pool``, ``conv2`` (strided nets); ``layer1``, ``layer2``, ``hidden``
(pooled net); ``hidden`` (perceptron); ``classifier``.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.models.layers import Chain, glorot_initialize


def pad_same(features: Tensor, kernel_size: int, stride: int, value: float) -> Tensor:
    """Pad as Keras' ``padding="same"``: the output has ceil(size / stride) pixels, an odd rest goes bottom and right.

    PyTorch pads both sides alike, which for a 3x3 convolution with stride 2 on an even size shifts the grid by one.
    """
    padding: list[int] = []
    for size in (features.shape[3], features.shape[2]):
        total = max(0, (math.ceil(size / stride) - 1) * stride + kernel_size - size)
        padding += [total // 2, total - total // 2]
    return F.pad(features, padding, value=value)


class SameConv2d(nn.Conv2d):
    """Convolution with Keras' ``padding="same"``: a side of H pixels becomes H / stride, rounded up."""

    def forward(self, input: Tensor) -> Tensor:
        """Pad with zeros, then convolve."""
        return super().forward(pad_same(input, self.kernel_size[0], self.stride[0], value=0.0))


class SameMaxPool2d(nn.Module):
    """Max-pool with Keras' ``padding="same"``: padded pixels never win.

    Args:
        kernel_size: side of the window.
        stride: step of the window.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """Pad with minus infinity, then take the maximum."""
        return F.max_pool2d(pad_same(features, self.kernel_size, self.stride, -math.inf), self.kernel_size, self.stride)


class _FixedSizeNet(Chain):
    """A chain of layers for square images of one size, which is checked: the last layers depend on it."""

    def __init__(self, parts: OrderedDict[str, nn.Module], in_channels: int, image_size: int) -> None:
        super().__init__(parts)
        self.in_channels = in_channels
        self.image_size = image_size
        glorot_initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        """Image ``[B, C, H, W]`` -> logits ``[B, K]``."""
        expected = (self.in_channels, self.image_size, self.image_size)
        if tuple(image.shape[1:]) != expected:
            raise UsageError(
                f"{type(self).__name__} got images of shape {list(image.shape[1:])} but is built for {list(expected)}; "
                "set in_channels and image_size to the data's, or choose a network that takes any size, as DigitsConv"
            )
        return super().forward(image)


class _StridedConvNet(_FixedSizeNet):
    def __init__(self, widths: tuple[int, int], num_classes: int, in_channels: int, image_size: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv1"] = SameConv2d(in_channels, widths[0], 3, stride=2)
        parts["activation"] = nn.LeakyReLU(0.2)
        parts["pool"] = SameMaxPool2d(2, stride=1)
        # No activation follows in the studies, so the rest is one affine map.
        parts["conv2"] = SameConv2d(widths[0], widths[1], 3, stride=2)
        parts["flatten"] = nn.Flatten()
        parts["classifier"] = nn.Linear(widths[1] * math.ceil(image_size / 4) ** 2, num_classes)
        super().__init__(parts, in_channels, image_size)
        # PyTorch's max-pool and strided convolutions take half the time in this layout on a CPU; same numbers
        self.to(memory_format=torch.channels_last)


class MNISTWideConv(_StridedConvNet):
    """Two strided convolutions with 256 and 512 channels: the teacher of seeds 000 and 001 (Keras tutorial, 2020).

    Image ``[B, 1, 28, 28]`` -> logits ``[B, K]``. Parameters: 1,433,610 for 10 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        image_size: height and width of the image.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__((256, 512), num_classes, in_channels, image_size)


class MNISTNarrowConv(_StridedConvNet):
    """Two strided convolutions with 16 and 32 channels: the student of seeds 000 and 001 (Keras tutorial, 2020).

    Image ``[B, 1, 28, 28]`` -> logits ``[B, K]``. Parameters: 20,490 for 10 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        image_size: height and width of the image.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> None:
        super().__init__((16, 32), num_classes, in_channels, image_size)


class MNISTPooledConv(_FixedSizeNet):
    """Two convolutions with max-pools and a hidden layer: the teacher of seed 004.

    Image ``[B, 1, 28, 28]`` -> logits ``[B, K]``. Parameters: 26,698 for 10 classes. The study does not name its
    activation and dropout rate: ReLU and 0.2 are ours.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        image_size: height and width of the image.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28, dropout: float = 0.2) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["layer1"] = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU())
        parts["pool1"] = nn.MaxPool2d(2)
        parts["layer2"] = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        parts["pool2"] = nn.MaxPool2d(2)
        parts["flatten"] = nn.Flatten()
        parts["hidden"] = nn.Sequential(nn.Linear(16 * (image_size // 4) ** 2, 32), nn.ReLU())
        parts["dropout"] = nn.Dropout(dropout)
        parts["classifier"] = nn.Linear(32, num_classes)
        super().__init__(parts, in_channels, image_size)


class MNISTPerceptron(_FixedSizeNet):
    """One hidden layer of 32 units: the student of seed 004, its teacher without convolutions and pools.

    Image ``[B, 1, 28, 28]`` -> logits ``[B, K]``. Parameters: 25,450 for 10 classes. The study does not name its
    activation and dropout rate: ReLU and 0.2 are ours.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        image_size: height and width of the image.
        dropout: probability of dropping a hidden unit.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: int = 28, dropout: float = 0.2) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["flatten"] = nn.Flatten()
        parts["hidden"] = nn.Sequential(nn.Linear(in_channels * image_size**2, 32), nn.ReLU())
        parts["dropout"] = nn.Dropout(dropout)
        parts["classifier"] = nn.Linear(32, num_classes)
        super().__init__(parts, in_channels, image_size)
