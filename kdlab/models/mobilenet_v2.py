"""MobileNetV2 for 32x32 images, in the two constructions that the CIFAR-100 literature uses.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
Both keep the paper's seven stages and change strides for small images; they are not the same network:

| | `MobileNetV2` (RepDistiller@b84f547) | `MobileNetV2HighRes` (chenyaofo/pytorch-cifar-models) |
|---|---|---|
| stride of stem / stage 2 | 2 / 1 | 1 / 1 |
| maps of a 32x32 image | 16, 16, 8, 4, 4, 2, 2 | 32, 32, 16, 8, 8, 4, 4 |
| channels | rounded down | rounded to multiples of 8 |
| first stage | expands by 1 with its own 1x1 convolution | leaves that convolution out, as the paper does |
| activation, dropout | ReLU, none | ReLU6, 0.2 |

Modules to tap: ``stem``, ``layer1`` ... ``layer7`` (the stages), ``head``, ``pool`` ([B, D]), ``classifier``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from kdlab.models.layers import Chain, ConvBNReLU, GlobalAveragePool, he_initialize

# Channels at width 1, blocks and stride of the seven stages (table 2 of the paper, stage 2 with stride 1).
_STAGES = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
_EXPANSION = 6


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; plus the input where the shape stays the same."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expansion: int,
        expand: bool,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.conv = nn.Sequential()
        if expand:
            self.conv.append(ConvBNReLU(in_channels, width, 1, activation=activation))
        self.conv.append(ConvBNReLU(width, width, 3, stride, groups=width, activation=activation))
        self.conv.append(nn.Conv2d(width, out_channels, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(out_channels))
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Expand, filter, project."""
        output: Tensor = self.conv(features)
        return features + output if self.is_residual else output


class _MobileNetV2(Chain):
    def __init__(
        self,
        channels: Callable[[int], int],
        last_width: int,
        stem_stride: int,
        expand_first: bool,
        activation: type[nn.Module],
        classifier: nn.Module,
        in_channels: int,
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        width = channels(32)
        parts["stem"] = ConvBNReLU(in_channels, width, 3, stem_stride, activation=activation)
        for stage, (base, count, stage_stride) in enumerate(_STAGES, start=1):
            expansion = 1 if stage == 1 else _EXPANSION
            layer = nn.Sequential()
            for position in range(count):
                stride = stage_stride if position == 0 else 1
                expand = stage > 1 or expand_first
                layer.append(InvertedResidual(width, channels(base), stride, expansion, expand, activation))
                width = channels(base)
            parts[f"layer{stage}"] = layer
        parts["head"] = ConvBNReLU(width, last_width, 1, activation=activation)
        parts["pool"] = GlobalAveragePool()
        parts["classifier"] = classifier
        super().__init__(parts)
        he_initialize(self, linear_std=0.01)


class MobileNetV2(_MobileNetV2):
    """MobileNetV2 (Sandler et al. 2018) as the student of the CIFAR-100 benchmarks, small and fast, for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. 32x32 images leave the seven stages at 16, 16, 8, 4, 4, 2 and 2
    pixels. Parameters: 812,836 for 100 classes and width 0.5 (RepDistiller's ``MobileNetV2``, T = 6, width 0.5).

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        width: factor on the channels of the stem and the stages, rounded down; the head has at least 1280.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3, width: float = 0.5) -> None:
        last_width = int(1280 * max(1.0, width))
        super().__init__(
            channels=lambda base: int(base * width),
            last_width=last_width,
            stem_stride=2,
            expand_first=True,
            activation=nn.ReLU,
            classifier=nn.Linear(last_width, num_classes),
            in_channels=in_channels,
        )


class MobileNetV2HighRes(_MobileNetV2):
    """MobileNetV2 (Sandler et al. 2018) that keeps 32x32 images at full size in its first stages.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. 32x32 images leave the seven stages at 32, 32, 16, 8, 8, 4 and 4
    pixels. Parameters: 1,483,524 for 100 classes and width 0.75, a teacher of seed study 002
    (chenyaofo/pytorch-cifar-models' ``mobilenetv2_x0_75``).

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        width: factor on the channels of the stem and the stages, rounded to multiples of 8; the head has at
            least 1280.
        dropout: probability of dropping an entry of the pooled features.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3, width: float = 0.75, dropout: float = 0.2) -> None:
        last_width = _nearest_multiple_of_8(1280 * max(1.0, width))
        super().__init__(
            channels=lambda base: _nearest_multiple_of_8(base * width),
            last_width=last_width,
            stem_stride=1,
            expand_first=False,
            activation=nn.ReLU6,
            classifier=nn.Sequential(nn.Dropout(dropout), nn.Linear(last_width, num_classes)),
            in_channels=in_channels,
        )


def _nearest_multiple_of_8(channels: float) -> int:
    """Round to a positive multiple of 8, never down by more than 10% (the rule of the authors' code)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
