"""Random changes of training images, as pure functions of (image, view number).

The loader draws the view number; the pixels follow from it. So a view can be made again at any time, on any machine,
and a teacher's answer to it can be remembered exactly, where the views can be counted.

Shapes: B images in the batch, C channels, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.errors import UsageError


class Augmentation(nn.Module, ABC):
    """Base of all augmentations.

    Attributes:
        num_views: How many different views of an image there are: ``view`` is then 0 ... num_views - 1. None where
            they cannot be counted: ``view`` is then 63 random bits.
    """

    num_views: int | None

    @abstractmethod
    def forward(self, image: Tensor, view: Tensor) -> Tensor:
        """Return the chosen view of each image, a function of these two arguments alone.

        Args:
            image: ``[B, C, H, W]`` ``uint8``.
            view: ``[B]`` ``int64``.

        Returns:
            ``[B, C, H, W]`` ``uint8``.
        """


class RandomCropFlip(Augmentation):
    """Pads with black, crops at the old size, and mirrors left-right or not: the usual CIFAR augmentation.

    With ``s = 2 * padding + 1`` there are s * s crops and twice as many views with ``flip``: 162 for padding 4. View
    ``(dy * s + dx) * 2 + mirrored`` shows the window whose upper left corner lies dy down and dx right in the padded
    image; without ``flip`` it is view ``dy * s + dx``.

    Args:
        padding: Black pixels added on each side.
        flip: Mirror half of the views. Switch it off for digits and letters.

    Raises:
        UsageError: padding is negative.

    Source: Lee et al. 2015, "Deeply-supervised nets"; He et al. 2016, section 4.2.
    """

    def __init__(self, padding: int = 4, flip: bool = True) -> None:
        super().__init__()
        if padding < 0:
            raise UsageError(f"RandomCropFlip: padding is {padding}; give 0 or a larger whole number")
        self.padding = padding
        self.flip = flip
        self.num_views: int = (2 * padding + 1) ** 2 * (2 if flip else 1)
        self._row_starts: dict[tuple[torch.Size, torch.device], Tensor] = {}

    def forward(self, image: Tensor, view: Tensor) -> Tensor:
        """See `Augmentation.forward`."""
        crop = self._crop(image, view // 2 if self.flip else view)
        if not self.flip:
            return crop
        # Choosing among the 2 B images of both directions is four times as fast as torch.where over their pixels.
        both = torch.cat([crop, crop.flip(-1)])
        count = len(image)
        return both.index_select(0, torch.arange(count, device=view.device) + count * (view % 2))

    def extra_repr(self) -> str:
        """See `torch.nn.Module.extra_repr`."""
        return f"padding={self.padding}, flip={self.flip}"

    def _crop(self, image: Tensor, crop: Tensor) -> Tensor:
        """Cut the window number ``crop`` = dy * s + dx out of each padded image.

        All rows of all windows are gathered in one go from a view of the padded pixels in which row i is the W
        pixels from i on. On a CPU this is five times as fast as advanced indexing.
        """
        if self.padding == 0 or len(image) == 0:
            return image
        pixels = F.pad(image, (self.padding,) * 4).contiguous().view(-1)
        count, width = image.shape[0], image.shape[-1]
        starts = self._starts(image).index_select(0, crop)  # [B, C * H]
        starts += torch.arange(0, pixels.numel(), pixels.numel() // count, device=crop.device)[:, None]
        rows = pixels.as_strided((pixels.numel() - width + 1, width), (1, 1))
        return rows.index_select(0, starts.view(-1)).view(image.shape)

    def _starts(self, image: Tensor) -> Tensor:
        """Return ``[s * s, C * H]``: where the rows of each window start in one padded image."""
        key = (image.shape[1:], image.device)
        if key not in self._row_starts:
            channels, height, width = image.shape[1:]
            shifts = 2 * self.padding + 1
            padded_width = width + 2 * self.padding
            plane = (height + 2 * self.padding) * padded_width
            window = torch.arange(shifts * shifts)
            corner = window // shifts * padded_width + window % shifts
            row = (torch.arange(channels)[:, None] * plane + torch.arange(height) * padded_width).view(-1)
            self._row_starts[key] = (corner[:, None] + row).to(image.device)
        return self._row_starts[key]
