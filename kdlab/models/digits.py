"""A network small enough for scikit-learn's 8x8 digits: trains on a laptop's processor in seconds.

Modules to tap: ``layer1`` ... ``layer3`` (after their ReLU), ``pool`` ([B, D]), ``fc``.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from kdlab.models.layers import Chain, ConvBNReLU, GlobalAveragePool, he_initialize


class DigitsConv(Chain):
    """Three 3x3 convolutions with batch norm, two max-pools, mean and linear layer, for images of any size.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``; 8x8 images leave the convolutions as 8x8, 4x4 and 2x2 maps. Ours,
    after no paper. Parameters for 10 classes: 613 at the default widths (a student), 56,554 at ``(32, 64, 64)`` (a
    teacher).

    Args:
        num_classes: number of logits.
        in_channels: channels of the image.
        widths: channels of the three convolutions.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, widths: tuple[int, int, int] = (3, 6, 6)) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["layer1"] = ConvBNReLU(in_channels, widths[0], 3)
        parts["pool1"] = nn.MaxPool2d(2, ceil_mode=True)
        parts["layer2"] = ConvBNReLU(widths[0], widths[1], 3)
        parts["pool2"] = nn.MaxPool2d(2, ceil_mode=True)
        parts["layer3"] = ConvBNReLU(widths[1], widths[2], 3)
        parts["pool"] = GlobalAveragePool()
        parts["fc"] = nn.Linear(widths[2], num_classes)
        super().__init__(parts)
        he_initialize(self)
