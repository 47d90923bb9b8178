"""Training images mixed in pairs, with labels in the same proportion: Mixup and CutMix.

One mixing weight per batch; the partner of each image is its neighbour in the (shuffled) batch, which is the batch
rolled by one. Student and teacher see the same mixture, as function matching needs it. Nothing here waits for the
device: the weight is looked up in a table of quantiles by random bits, and never becomes a Python number.

Shapes: B images in the batch, C channels, H x W pixels, K classes.
Source of the form: Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent".
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor, nn

from kdlab.data.counters import counter_bits, uniform
from kdlab.errors import UsageError

_QUANTILE_BITS = 12


class Mixing(nn.Module, ABC):
    """Base of all mixings.

    Args:
        alpha: Both parameters of the Beta distribution of the mixing weight. 1 is uniform, smaller values mix less.

    Raises:
        UsageError: alpha is not positive.
    """

    quantiles: Tensor

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        if not alpha > 0:
            raise UsageError(f"{type(self).__name__}: alpha is {alpha}; give a positive number")
        self.alpha = alpha
        middles = (torch.arange(2**_QUANTILE_BITS, dtype=torch.float64) + 0.5) / 2**_QUANTILE_BITS
        table = torch.from_numpy(betaincinv(alpha, alpha, middles.numpy())).float()
        self.register_buffer("quantiles", table, persistent=False)

    def forward(self, image: Tensor, label: Tensor, num_classes: int, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Mix every image with its neighbour; a batch of one image stays what it is.

        Args:
            image: ``[B, C, H, W]`` ``float32``.
            label: ``[B]`` ``int64``.
            num_classes: K.
            bits: ``[1]`` ``int64`` of random bits, from `kdlab.data.counter_bits`.

        Returns:
            The mixed images, and ``[B, K]`` ``float32`` class weights that sum to 1 in each row.
        """
        one_hot = F.one_hot(label, num_classes).float()
        mixed, weight = self.mix(image, image.roll(1, 0), bits)
        return mixed, torch.lerp(one_hot.roll(1, 0), one_hot, weight)

    @abstractmethod
    def mix(self, image: Tensor, partner: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed images and the share ``[1]`` that ``image`` has in them."""

    def extra_repr(self) -> str:
        """See `torch.nn.Module.extra_repr`."""
        return f"alpha={self.alpha}"

    def draw_weight(self, bits: Tensor) -> Tensor:
        """Draw ``[1]`` from Beta(alpha, alpha), to the nearest of 4,096 quantiles."""
        return self.quantiles.index_select(0, _fresh(bits, 0) >> (64 - _QUANTILE_BITS) & (2**_QUANTILE_BITS - 1))


class Mixup(Mixing):
    """``w * image + (1 - w) * partner`` with w = max(lambda, 1 - lambda), lambda from Beta(alpha, alpha).

    The larger weight stays with the image itself, as in Beyer et al.; in a shuffled batch this changes nothing.

    Args:
        alpha: Both parameters of the Beta distribution. 1 is uniform, smaller values mix less.

    Source: Zhang et al. 2018, "mixup: Beyond empirical risk minimization".
    """

    def mix(self, image: Tensor, partner: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Mixing.mix`."""
        weight = self.draw_weight(bits)
        weight = torch.maximum(weight, 1 - weight)
        return torch.lerp(partner, image, weight), weight


class CutMix(Mixing):
    """Pastes a box of the partner into the image, the same box in the whole batch.

    The box has the sides ``sqrt(1 - lambda) * (H, W)`` around a uniformly drawn centre and is cut off at the border.
    The label weight is the share of pixels that really remain.

    Args:
        alpha: Both parameters of the Beta distribution of lambda. 1 is uniform.

    Source: Yun et al. 2019, "CutMix: Regularization strategy to train strong classifiers".
    """

    def mix(self, image: Tensor, partner: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Mixing.mix`."""
        side = torch.sqrt(1 - self.draw_weight(bits))
        rows = _inside(image.shape[-2], side, uniform(_fresh(bits, 1)))
        columns = _inside(image.shape[-1], side, uniform(_fresh(bits, 2)))
        box = rows[:, None] & columns[None, :]
        return torch.where(box, partner, image), 1 - box.float().mean().view(1)


def _fresh(bits: Tensor, number: int) -> Tensor:
    """Return new random bits made of old ones."""
    return counter_bits(0, 0, bits, number)


def _inside(size: int, side: Tensor, centre: Tensor) -> Tensor:
    """Return ``[size]`` bool: the rows (or columns) in the box; ``side`` and ``centre`` are shares of ``size``."""
    half = torch.floor(side * size) / 2
    middle = torch.floor(centre * size)
    position = torch.arange(size, device=side.device)
    return (position >= middle - torch.floor(half)) & (position < middle + torch.ceil(half))
