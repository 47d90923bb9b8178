"""How many bytes a network takes: on disk and while it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from kdlab.profiling.base import Profiler
from kdlab.profiling.operators import OperatorWatch, tensors_in
from kdlab.profiling.results import Measurement


@dataclass(frozen=True)
class ModelSizeProfile(Measurement):
    """Size of a network.

    Attributes:
        parameters: numbers in its parameters, a shared one counted once.
        trainable_parameters: those of them that require a gradient.
        size_bytes: of the saved state, as it is: parameters and buffers; a file adds a header.
        size_bytes_fp32: with all floating-point numbers in 4 bytes.
        size_bytes_fp16: with all floating-point numbers in 2 bytes.
        size_bytes_int8_estimate: an estimate, nothing was quantised: weights of two and more dimensions in 1 byte
            with one 4-byte scale per output channel, all else as in fp32.
        inference_peak_bytes: of state, image and activations together, at the worst moment of one inference at
            batch 1. Buffers inside libraries come on top.
    """

    parameters: int
    trainable_parameters: int
    size_bytes: int
    size_bytes_fp32: int
    size_bytes_fp16: int
    size_bytes_int8_estimate: int
    inference_peak_bytes: int

    def metrics(self) -> dict[str, float | None]:
        """All fields by their names."""
        return dict(vars(self))


class ModelSizeProfiler(Profiler):
    """Count the parameters of the student, the bytes of its saved state and the memory of one inference."""

    section = "size"
    headline = ("parameters", "trainable_parameters", "size_bytes", "inference_peak_bytes")

    def measure(self, network: nn.Module, image: Tensor) -> ModelSizeProfile:
        """Return the size of `network`."""
        parameters = list(network.parameters())
        state = _distinct(network.state_dict().values())
        return ModelSizeProfile(
            parameters=sum(p.numel() for p in parameters),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            size_bytes=sum(t.numel() * t.element_size() for t in state),
            size_bytes_fp32=sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in state),
            size_bytes_fp16=sum(t.numel() * (2 if t.is_floating_point() else t.element_size()) for t in state),
            size_bytes_int8_estimate=sum(map(_int8_bytes, state)),
            inference_peak_bytes=_peak_bytes(network, image),
        )


def _distinct(tensors: Iterable[object]) -> list[Tensor]:
    """Tied weights have two names in the state but are one tensor."""
    found = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
    return list({(t.data_ptr(), t.shape) if t.numel() else (id(t), t.shape): t for t in found}.values())


def _int8_bytes(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return tensor.numel() * tensor.element_size()
    return tensor.numel() + 4 * tensor.shape[0] if tensor.dim() >= 2 else 4 * tensor.numel()


@torch.inference_mode()
def _peak_bytes(network: nn.Module, image: Tensor) -> int:
    network(image)  # what a network does once only, at its first image, is not counted
    live = _LiveBytes([*network.parameters(), *network.buffers(), image])
    with live:
        network(image)
    return live.peak


class _LiveBytes(OperatorWatch):  # type: ignore[no-untyped-call]
    """Keep account of the memory that tensors hold; ``peak`` is the most at any time.

    The same on every device and in every run, which an allocator's statistics are not.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self._bytes: MutableMapping[torch.UntypedStorage, int] = WeakIdKeyDictionary()
        self.peak = 0
        self._add(there)

    def saw(self, operator: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:  # noqa: ANN401
        """Add what an operator made."""
        self._add(tensors_in(output))

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._bytes[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self._bytes.values()))
