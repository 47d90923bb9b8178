"""Directions of vectors, also of those that have none."""

import torch
from torch import Tensor


def unit_rows(rows: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Each vector along the last dimension divided by its length.

    A vector that is not longer than `floor` has no direction: it becomes zeros, without gradient. (Dividing by
    length + eps instead would give it a gradient of 1 / eps.)

    Args:
        rows: ``[..., D]``.
        floor: the length that counts as none; ``[..., 1]`` for one per vector.
    """
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    has_direction = length > floor
    return torch.where(has_direction, rows / torch.where(has_direction, length, 1.0), 0.0)


def correlation_rows(rows: Tensor) -> Tensor:
    """Each vector centred and divided by its length: the dot product of two is their Pearson correlation.

    A constant vector correlates with nothing: it becomes zeros, without gradient.

    Args:
        rows: ``[..., D]``.
    """
    centred = rows - rows.mean(dim=-1, keepdim=True)
    # the mean is rounded, so a constant row is not exactly 0 after centring: a few units in the last place are left
    rounding = 8 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows.detach(), dim=-1, keepdim=True)
    return unit_rows(centred, floor=rounding)
