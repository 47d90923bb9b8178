"""VGG networks with batch norm for 32x32 images.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015; batch
norm and the small classifiers are what the CIFAR literature made of it. Two families, which differ in the pooling
and in the classifier:

* `VGG8` ... `VGG19`: RepDistiller's (HobbitLong/RepDistiller@b84f547). Max-pool after the stages 1 to 3 only, so
  stages 4 and 5 both see 4x4 maps; a global mean and one linear layer. (RepDistiller adds a fourth max-pool for
  64x64 images; here the layers do not depend on the image.)
* `VGG11MLPHead`: chenyaofo/pytorch-cifar-models' and the seed studies'. Max-pool after all five stages and a
  classifier of three linear layers with dropout.

Modules to tap: ``layer1`` ... ``layer5`` (the stages, after their last ReLU), ``pool`` ([B, D]), ``classifier``.
Pools round up, which changes nothing for 32x32 images and lets any smaller one through.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from kdlab.models.layers import Chain, GlobalAveragePool, he_initialize


class _VGG(Chain):
    """Five stages of 3x3 convolutions, max-pools after the first `pools` of them, mean, classifier."""

    def __init__(
        self, widths: Sequence[int], convolutions: Sequence[int], pools: int, classifier: nn.Module, in_channels: int
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for stage, (width, count) in enumerate(zip(widths, convolutions, strict=True), start=1):
            layer = nn.Sequential()
            for _ in range(count):
                layer.extend([nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()])
                channels = width
            parts[f"layer{stage}"] = layer
            if stage <= pools:
                parts[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
        parts["pool"] = GlobalAveragePool()
        parts["classifier"] = classifier
        super().__init__(parts)
        he_initialize(self, linear_std=0.01)


class _CifarVGG(_VGG):
    def __init__(self, convolutions: Sequence[int], num_classes: int, in_channels: int) -> None:
        super().__init__((64, 128, 256, 512, 512), convolutions, 3, nn.Linear(512, num_classes), in_channels)


class VGG8(_CifarVGG):
    """VGG-8 with batch norm and one linear layer as classifier (after Simonyan and Zisserman 2015), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8, 512 x 4 x 4 twice,
    of 1, 1, 1, 1 and 1 convolutions. Parameters: 3,965,028 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__((1, 1, 1, 1, 1), num_classes, in_channels)


class VGG11(_CifarVGG):
    """VGG-11 with batch norm and one linear layer as classifier (after Simonyan and Zisserman 2015), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8, 512 x 4 x 4 twice,
    of 1, 1, 2, 2 and 2 convolutions. Parameters: 9,277,284 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__((1, 1, 2, 2, 2), num_classes, in_channels)


class VGG13(_CifarVGG):
    """VGG-13 with batch norm and one linear layer as classifier (after Simonyan and Zisserman 2015), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8, 512 x 4 x 4 twice,
    of 2, 2, 2, 2 and 2 convolutions. Parameters: 9,462,180 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__((2, 2, 2, 2, 2), num_classes, in_channels)


class VGG16(_CifarVGG):
    """VGG-16 with batch norm and one linear layer as classifier (after Simonyan and Zisserman 2015), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8, 512 x 4 x 4 twice,
    of 2, 2, 3, 3 and 3 convolutions. Parameters: 14,774,436 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__((2, 2, 3, 3, 3), num_classes, in_channels)


class VGG19(_CifarVGG):
    """VGG-19 with batch norm and one linear layer as classifier (after Simonyan and Zisserman 2015), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8, 512 x 4 x 4 twice,
    of 2, 2, 4, 4 and 4 convolutions. Parameters: 20,086,692 for 100 classes.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    def __init__(self, num_classes: int = 100, in_channels: int = 3) -> None:
        super().__init__((2, 2, 4, 4, 4), num_classes, in_channels)


class VGG11MLPHead(_VGG):
    """VGG-11 with batch norm and the classifier 512-512-512-K of the seed studies (after Simonyan and Zisserman 2015).

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages of 32x32 images: 64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8,
    512 x 4 x 4, 512 x 2 x 2. Parameters for 100 classes: 9,802,596, the student of seed study 003 and a teacher of
    002; 2,420,580 with ``width=32, hidden=(256, 128)``, one of the four sub-students of study 003.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        hidden: widths of the hidden layers of the classifier.
        dropout: probability of dropping a hidden unit of the classifier.
    """

    def __init__(
        self,
        num_classes: int = 100,
        in_channels: int = 3,
        width: int = 64,
        hidden: tuple[int, ...] = (512, 512),
        dropout: float = 0.5,
    ) -> None:
        classifier = nn.Sequential()
        channels = 8 * width
        for units in hidden:
            classifier.extend([nn.Linear(channels, units), nn.ReLU(), nn.Dropout(dropout)])
            channels = units
        classifier.append(nn.Linear(channels, num_classes))
        widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
        super().__init__(widths, (1, 1, 2, 2, 2), 5, classifier, in_channels)
