"""A network with the normalisation that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdlab.errors import UsageError


class Normalized(nn.Module):
    """Images ``[B, C, H, W]`` in [0, 1] -> ``network((image - mean) / std)``, logits ``[B, K]``.

    For a teacher that was trained with another mean and standard deviation than its student. Let the data come as they
    are, ``data.mean: [0, 0, 0]`` and ``data.std: [1, 1, 1]``, and wrap the networks that want something else.

    The wrapped network is the attribute ``network``, so its layers are named ``network.layer1``. It is given its own
    ``num_classes`` in the config; no link reaches that deep.

    Args:
        network: image -> logits.
        mean: of each channel, in units of [0, 1].
        std: of each channel, in units of [0, 1]; positive.

    Raises:
        UsageError: if they differ in length, or a `std` is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise UsageError(f"mean has {len(mean)} value(s) and std {len(std)}; give one of each per channel")
        if min(std) <= 0:
            raise UsageError(f"std is {list(std)}; give positive numbers, they divide the pixels")
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self._told = f"mean={list(mean)}, std={list(std)}"

    def forward(self, image: Tensor) -> Tensor:
        """Image ``[B, C, H, W]`` -> logits ``[B, K]``."""
        logits: Tensor = self.network((image - self.mean) / self.std)
        return logits

    def extra_repr(self) -> str:
        """Both, by which remembered answers of one and the same network are told apart."""
        return self._told
