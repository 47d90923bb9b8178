"""Residual networks for 32x32 images, as the CIFAR-100 distillation benchmarks use them.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016, section 4.2. Layer by layer
the networks of RepDistiller (Tian et al. 2020; HobbitLong/RepDistiller@b84f547): where the shape changes, the
shortcut is a 1x1 convolution with batch norm (the paper's option B; its own CIFAR nets use the parameter-free
option A). chenyaofo/pytorch-cifar-models builds the same, so its ResNet44 is the ResNet44 here.

Modules to tap: ``conv1``, ``layer1`` ... (the stages, after their last ReLU), ``pool`` ([B, D]), ``fc``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from kdlab.errors import UsageError
from kdlab.models.layers import Chain, GlobalAveragePool, he_initialize
from kdlab.models.residual_blocks import BasicBlock, Bottleneck


class _ResNet(Chain):
    """A 3x3 stem, stages of residual blocks (each but the first halves the image), mean and linear layer."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        stem_width: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        num_classes: int,
        in_channels: int,
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv1"] = nn.Conv2d(in_channels, stem_width, 3, padding=1, bias=False)
        parts["bn1"] = nn.BatchNorm2d(stem_width)
        parts["relu"] = nn.ReLU()
        channels = stem_width
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            layer = nn.Sequential()
            for position in range(count):
                stride = 2 if stage > 1 and position == 0 else 1
                layer.append(block(channels, width, stride))
                channels = width * block.expansion
            parts[f"layer{stage}"] = layer
        parts["pool"] = GlobalAveragePool()
        parts["fc"] = nn.Linear(channels, num_classes)
        super().__init__(parts)
        he_initialize(self)


class CifarResNet(_ResNet):
    """The CIFAR ResNet of any depth and width (He et al. 2016): three stages of basic blocks.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``; 32x32 images leave the stages as 32x32, 16x16 and 8x8 maps.
    Parameters: 83,892 at depth 8, the default widths and 100 classes.

    Args:
        depth: layers with weights, 6n + 2 for n blocks in each stage.
        widths: channels of the stem and of the three stages.
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        num_classes: int = 100,
        in_channels: int = 3,
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            nearest = max(8, 6 * round((depth - 2) / 6) + 2)
            raise UsageError(f"depth is {depth}, but a CIFAR ResNet has 6n + 2 layers, 8 or more; set depth: {nearest}")
        stem_width, *stage_widths = widths
        super().__init__(BasicBlock, stem_width, stage_widths, [(depth - 2) // 6] * 3, num_classes, in_channels)


class ResNet20(CifarResNet):
    """CIFAR ResNet with 20 layers (He et al. 2016), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 16 x 32 x 32, 32 x 16 x 16, 64 x 8 x 8.
    Parameters: 278,324 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(20, (16, 16, 32, 64), num_classes, in_channels)


class ResNet32(CifarResNet):
    """CIFAR ResNet with 32 layers (He et al. 2016), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 16 x 32 x 32, 32 x 16 x 16, 64 x 8 x 8.
    Parameters: 472,756 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(32, (16, 16, 32, 64), num_classes, in_channels)


class ResNet44(CifarResNet):
    """CIFAR ResNet with 44 layers (He et al. 2016), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 16 x 32 x 32, 32 x 16 x 16, 64 x 8 x 8.
    Parameters: 667,188 for 100 classes. Also the ResNet44 of
    chenyaofo/pytorch-cifar-models, a teacher of seed study 002.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(44, (16, 16, 32, 64), num_classes, in_channels)


class ResNet56(CifarResNet):
    """CIFAR ResNet with 56 layers (He et al. 2016), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 16 x 32 x 32, 32 x 16 x 16, 64 x 8 x 8.
    Parameters: 861,620 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(56, (16, 16, 32, 64), num_classes, in_channels)


class ResNet110(CifarResNet):
    """CIFAR ResNet with 110 layers (He et al. 2016), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 16 x 32 x 32, 32 x 16 x 16, 64 x 8 x 8.
    Parameters: 1,736,564 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(110, (16, 16, 32, 64), num_classes, in_channels)


class ResNet8x4(CifarResNet):
    """CIFAR ResNet with 8 layers and wide stages (x4) (He et al. 2016; widths of Tian et al. 2020), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8.
    Parameters: 1,233,540 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(8, (32, 64, 128, 256), num_classes, in_channels)


class ResNet32x4(CifarResNet):
    """CIFAR ResNet with 32 layers and wide stages (x4) (He et al. 2016; widths of Tian et al. 2020), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8.
    Parameters: 7,433,860 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(32, (32, 64, 128, 256), num_classes, in_channels)


class ResNet50(_ResNet):
    """ResNet-50 for 32x32 images: bottleneck blocks behind a 3x3 stem without max-pool (He et al. 2016).

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 256 x 32 x 32, 512 x 16 x 16, 1024 x 8 x 8, 2048 x 4 x 4.
    Parameters: 23,705,252 for 100 classes. As RepDistiller's ResNet50 (its ``resnetv2.py``); for the ImageNet
    stem use `TorchvisionModel`.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__(Bottleneck, 64, (64, 128, 256, 512), (3, 4, 6, 3), num_classes, in_channels)
