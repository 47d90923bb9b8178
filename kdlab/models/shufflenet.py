"""ShuffleNet V1 and V2 for 32x32 images, as the CIFAR-100 distillation benchmarks use them.

Sources: Zhang, Zhou, Lin, Sun, "ShuffleNet", 2018 (V1) and Ma, Zhang, Zheng, Sun, "ShuffleNet V2", 2018. Layer by
layer the networks of RepDistiller (HobbitLong/RepDistiller@b84f547), which differ from the papers: the stem is a
1x1 convolution without stride or max-pool, and V1 shuffles only within the groups of its first 1x1 convolution.

Modules to tap: ``stem``, ``layer1`` ... ``layer3`` (the stages), ``head`` (V2), ``pool`` ([B, D]), ``fc``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from kdlab.models.layers import Chain, ConvBNReLU, GlobalAveragePool


def shuffle_channels(features: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` groups: channel i of group g goes to place i * groups + g."""
    batch, channels, height, width = features.shape
    grouped = features.reshape(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleUnitV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; added to the input, or beside its average at stride 2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, first_groups: int, groups: int) -> None:
        super().__init__()
        width = out_channels // 4
        self.first_groups = first_groups
        self.expand = ConvBNReLU(in_channels, width, 1, groups=first_groups)
        # Unlike the paper, RepDistiller puts a ReLU behind the depthwise convolution.
        self.depthwise = ConvBNReLU(width, width, 3, stride, groups=width)
        self.project = nn.Sequential(
            nn.Conv2d(width, out_channels, 1, groups=groups, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to the input, or join it with the averaged input where the image is halved."""
        residual = shuffle_channels(self.expand(features), self.first_groups)
        residual = self.project(self.depthwise(residual))
        joined = residual + features if self.shortcut is None else torch.cat((residual, self.shortcut(features)), dim=1)
        output: Tensor = self.relu(joined)
        return output


class ShuffleNetV1(Chain):
    """ShuffleNet V1 with 3 groups (Zhang et al. 2018), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 240 x 16 x 16, 480 x 8 x 8, 960 x 4 x 4, of 4, 8 and 4
    units. Parameters: 949,258 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        stem_width, groups = 24, 3
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=ConvBNReLU(in_channels, stem_width, 1))
        channels = stem_width
        for stage, (width, units) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
            # The averaged input is joined to the first unit, which therefore makes only the missing channels. The
            # stem has too few channels to be worth grouping (section 3.2 of the paper).
            first = ShuffleUnitV1(channels, width - channels, 2, 1 if channels == stem_width else groups, groups)
            rest = [ShuffleUnitV1(width, width, 1, groups, groups) for _ in range(units - 1)]
            parts[f"layer{stage}"] = nn.Sequential(first, *rest)
            channels = width
        parts["pool"] = GlobalAveragePool()
        parts["fc"] = nn.Linear(channels, num_classes)
        super().__init__(parts)


class ShuffleUnitV2(nn.Module):
    """Half of the channels passes untouched, the other half is convolved; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, stride=1)

    def forward(self, features: Tensor) -> Tensor:
        """Split, convolve the second half, join, shuffle."""
        kept, convolved = features.chunk(2, dim=1)
        return shuffle_channels(torch.cat((kept, self.branch(convolved)), dim=1), groups=2)


class DownsampleUnitV2(nn.Module):
    """Two branches that both see all channels and halve the image; joined and shuffled."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels // 2
        self.shortcut = nn.Sequential(*_depthwise(in_channels, stride=2), ConvBNReLU(in_channels, width, 1))
        self.branch = _branch(in_channels, width, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        """Run both branches, join, shuffle."""
        return shuffle_channels(torch.cat((self.shortcut(features), self.branch(features)), dim=1), groups=2)


def _branch(in_channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(ConvBNReLU(in_channels, width, 1), *_depthwise(width, stride), ConvBNReLU(width, width, 1))


def _depthwise(channels: int, stride: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return convolution, nn.BatchNorm2d(channels)


class ShuffleNetV2(Chain):
    """ShuffleNet V2 (Ma et al. 2018), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 116 x 16 x 16, 232 x 8 x 8, 464 x 4 x 4, of 4, 8 and 4
    units. Parameters: 1,355,528 for 100 classes at the default widths (the paper's 1x).

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        widths: even channels of the three stages, and the channels of the last 1x1 convolution.
    """

    def __init__(
        self,
        num_classes: int = 100,
        in_channels: int = 3,
        widths: tuple[int, int, int, int] = (116, 232, 464, 1024),
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=ConvBNReLU(in_channels, 24, 1))
        channels = 24
        *stage_widths, last_width = widths
        for stage, (width, units) in enumerate(zip(stage_widths, (4, 8, 4), strict=True), start=1):
            rest = [ShuffleUnitV2(width) for _ in range(units - 1)]
            parts[f"layer{stage}"] = nn.Sequential(DownsampleUnitV2(channels, width), *rest)
            channels = width
        parts["head"] = ConvBNReLU(channels, last_width, 1)
        parts["pool"] = GlobalAveragePool()
        parts["fc"] = nn.Linear(last_width, num_classes)
        super().__init__(parts)
