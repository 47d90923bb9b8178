"""The ways in which one network can be run for its latency."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

Variant = Literal["eager", "autocast_bf16", "bf16", "compiled", "compiled_bf16"]


def prepare(network: nn.Module, variant: Variant, dtype: torch.dtype) -> tuple[nn.Module, torch.dtype]:
    """Return the network to call, a copy where it must be another one, and the type of its images."""
    if variant in ("bf16", "compiled_bf16"):
        dtype = torch.bfloat16
        network = copy.deepcopy(network).to(dtype)
    if variant.startswith("compiled"):
        compiled: Any = torch.compile(network, dynamic=False)
        return compiled, dtype
    return network, dtype


def surroundings(variant: Variant, device: torch.device) -> AbstractContextManager[object]:
    """Return what is entered for each call: autocast or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if variant == "autocast_bf16" else nullcontext()
