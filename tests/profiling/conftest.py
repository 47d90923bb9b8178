"""Small networks counted by hand, and a callback to put in their place."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class HandCounted(nn.Module):
    """Image [B, 3, 8, 8] -> logits [B, 10]: a plain, a grouped and a strided convolution, batch norm, linear.

    ============  ==========================  ===================
    conv          3 -> 8, 3x3, pad 1          8*8*8 * 3*9 = 13,824
    grouped       8 -> 8, 3x3, 4 groups       8*8*8 * 2*9 =  9,216
    strided       8 -> 16, 1x1, stride 2      16*4*4 * 8  =  2,048
    fc            16 -> 10                    16*10       =    160
    ============  ==========================  ===================
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.strided = nn.Conv2d(8, 16, 1, stride=2)
        self.fc = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.norm(self.grouped(self.conv(image))))
        return self.fc(self.strided(maps).mean(dim=(2, 3)))


@pytest.fixture
def hand_counted() -> HandCounted:
    return HandCounted()
