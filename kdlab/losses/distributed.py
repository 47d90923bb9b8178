"""The whole batch for losses that relate samples, when each process holds a part of it.

Shapes: B samples in this process; the batch of all processes is the global batch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kdlab.errors import UsageError


def gather_batch(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes, joined along the first dimension in the order of ranks.

    Without a process group, or with one process, that is `tensor` itself. All processes must call this in the
    same order; the number of samples may differ between them and may be 0.

    Gradients flow back: a process receives, for its own samples, the *sum* of the gradients of all processes. A
    loss of the gathered batch is the same number in each of W processes, so that sum is W times its gradient, and
    the mean over processes that DistributedDataParallel takes makes it exactly the gradient of one process with
    the global batch.

    Args:
        tensor: ``[B, ...]``; all dimensions but the first are equal in all processes.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensor
    size = torch.tensor([len(tensor)], device=tensor.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    gathered: Tensor = _GatherBatch.apply(tensor, torch.cat(sizes).tolist())
    return gathered


def gather_rows(features: Tensor, loss: str) -> Tensor:
    """Return the features of the global batch as one row per sample, ``[global B, D]``.

    Args:
        features: ``[B, C, H, W]`` or ``[B, D]``.
        loss: name of the loss, for the message.

    Raises:
        UsageError: if there is only one sample, which has no relation to others.
    """
    rows = gather_batch(features.flatten(start_dim=1))
    at_least_two(rows, loss)
    return rows


def at_least_two(rows: Tensor, loss: str) -> None:
    """Check that there are samples to relate.

    Raises:
        UsageError: if there is one sample or none.
    """
    if len(rows) < 2:
        raise UsageError(
            f"{loss} relates the samples of a batch, but this batch has {len(rows)}; "
            "set data.batch_size to at least 2 and leave no last batch of one sample"
        )


class _GatherBatch(torch.autograd.Function):
    """all_gather of parts of different length; backward sums over processes and returns the own part."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int]) -> Tensor:  # noqa: ANN401 (torch's context)
        ctx.sizes = sizes
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])  # all_gather wants equal shapes
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        total = gradient.clone(memory_format=torch.contiguous_format)  # all_reduce works in place
        dist.all_reduce(total)
        start = sum(ctx.sizes[: dist.get_rank()])
        return total[start : start + ctx.sizes[dist.get_rank()]], None
