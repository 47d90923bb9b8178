"""Calls on a GPU that nobody waits for in between."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.profiling.timing import Distribution, distribution


def time_queued(network: nn.Module, batch: Tensor, calls: int, context: AbstractContextManager[object]) -> Distribution:
    """Time calls on a GPU that are queued one behind the other, without waiting, by CUDA events between them.

    Args:
        network: has run on such a batch before.
        batch: ``[B, C, H, W]`` on the GPU.
        calls: how many.
        context: entered anew around each call.
    """
    with torch.cuda.device(batch.device):  # events belong to the current device's stream, so does the network's work
        events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]  # type: ignore[no-untyped-call]
        events[0].record()
        for event in events[1:]:
            with context:
                network(batch)
            event.record()
        torch.cuda.synchronize(batch.device)
    return distribution([[start.elapsed_time(stop) / 1e3 for start, stop in itertools.pairwise(events)]])
