"""A copy of a network to measure, so that the network itself and the random numbers stay as they are."""

from __future__ import annotations

import copy
import os
import platform
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn


@contextmanager
def isolated(network: nn.Module, device: torch.device | None = None) -> Iterator[nn.Module]:
    """Yield a copy of `network` in eval mode without hooks; random numbers are as before afterwards.

    The copy is brought to `device`, the network itself stays where it is. Gradients are on inside: a test loop may run
    in inference mode, where a copy could not be differentiated.
    """
    places = {tensor.device for tensor in (*network.parameters(), *network.buffers())} | ({device} if device else set())
    devices = sorted(place.index or 0 for place in places if place.type == "cuda")
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):
        yield bare_copy(network).to(device)


def bare_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode, without hooks and without gradients.

    Hooks are not even copied: one that is a method of the training system would bring the Trainer along.
    """
    network = getattr(network, "_orig_mod", network)  # what torch.compile wrapped
    memo: dict[int, object] = {}
    for module in network.modules():
        for name, value in vars(module).items():
            if "_hooks" in name and isinstance(value, dict):
                memo[id(value)] = OrderedDict()
    return copy.deepcopy(network, memo).eval()


def noise_image(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """Return ``[1, C, H, W]`` of the same noise each time, where and in the type that the network's parameters are."""
    tensor = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(0))
    return _noise((1, *image_shape)).to(tensor.device, tensor.dtype)


def noise_batch(image: Tensor, batch_size: int) -> Tensor:
    """Return ``[batch_size, C, H, W]`` of different noise images, like ``[1, C, H, W]`` `image`."""
    return _noise((batch_size, *image.shape[1:])).to(image.device, image.dtype)


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def synchronize(device: torch.device) -> None:
    """Wait until everything that was started on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """Return the model name of a GPU, or that of this machine's processor with its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{_processor()}, {os.cpu_count()} cores"


def describe_device(device: torch.device) -> str:
    """Return `device_name`, and for a processor the number of threads that torch uses."""
    threads = f", {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
    return device_name(device) + threads


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
