"""Wide residual networks for 32x32 images.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", 2016. Layer by layer the network of RepDistiller
(HobbitLong/RepDistiller@b84f547).

Modules to tap: ``conv1``, ``layer1`` ... ``layer3`` (the stages; pre-activation blocks, so these maps are sums
*before* a ReLU), ``relu`` (the last map after batch norm and ReLU), ``pool`` ([B, D]), ``fc``.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.models.layers import Chain, GlobalAveragePool, he_initialize


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, beside a shortcut without activation."""

    def __init__(self, in_channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        same = in_channels == width and stride == 1
        self.shortcut = None if same else nn.Conv2d(in_channels, width, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Add the two convolutions to the shortcut; a projecting shortcut reads the activated features."""
        activated = self.relu(self.bn1(features))
        residual = self.relu(self.bn2(self.conv1(activated)))
        residual = self.conv2(self.dropout(residual))
        output: Tensor = residual + (features if self.shortcut is None else self.shortcut(activated))
        return output


class WRN(Chain):
    """Wide ResNet of a given depth and width factor (Zagoruyko and Komodakis 2016), for 32x32 images.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Stages: 16w x 32 x 32, 32w x 16 x 16, 64w x 8 x 8 for width w.
    Parameters for 100 classes: 703,284 (WRN-16-2), 569,780 (WRN-40-1), 2,255,156 (WRN-40-2).

    Args:
        depth: layers with weights, 6n + 4 for n blocks in each stage.
        width: factor on the channels 16, 32 and 64 of the three stages.
        num_classes: number of logits.
        in_channels: channels of the image.
        dropout: probability of dropping a channel entry between the two convolutions of each block.
    """

    def __init__(
        self, depth: int, width: int, num_classes: int = 100, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        if depth < 10 or depth % 6 != 4:
            nearest = max(10, 6 * round((depth - 4) / 6) + 4)
            raise UsageError(f"depth is {depth}, but a wide ResNet has 6n + 4 layers, 10 or more; set depth: {nearest}")
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv1"] = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        channels = 16
        for stage, stage_width in enumerate((16 * width, 32 * width, 64 * width), start=1):
            layer = nn.Sequential()
            for position in range((depth - 4) // 6):
                stride = 2 if stage > 1 and position == 0 else 1
                layer.append(PreActivationBlock(channels, stage_width, stride, dropout))
                channels = stage_width
            parts[f"layer{stage}"] = layer
        parts["bn1"] = nn.BatchNorm2d(channels)
        parts["relu"] = nn.ReLU()
        parts["pool"] = GlobalAveragePool()
        parts["fc"] = nn.Linear(channels, num_classes)
        super().__init__(parts)
        he_initialize(self)
