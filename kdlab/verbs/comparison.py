"""The costs of several networks, measured in turns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from kdlab.profiling import (
    EnergyProfiler,
    LatencyProfiler,
    MACsProfiler,
    ModelSizeProfiler,
    Profiler,
)
from kdlab.profiling.isolation import isolated, noise_image
from kdlab.profiling.latency import LatencyProfile
from kdlab.profiling.variants import Variant
from kdlab.verbs.targets import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Costs:
    """What one network costs: the profilers with their results.

    Attributes:
        target: the network.
        macs: multiply-adds.
        size: parameters and bytes.
        latency: milliseconds.
        energy: millijoules.
    """

    target: Target
    macs: MACsProfiler
    size: ModelSizeProfiler
    latency: LatencyProfiler
    energy: EnergyProfiler

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """All of them, in the order of the tables."""
        return self.macs, self.size, self.latency, self.energy

    def metrics(self) -> dict[str, float]:
        """All figures by their stable names."""
        return {name: value for profiler in self.profilers for name, value in profiler.as_metrics().items()}

    def profile(self) -> dict[str, dict[str, Any]]:
        """Everything that was measured, as `result.json` has it under ``profile``."""
        return {profiler.section: profiler.as_dict() for profiler in self.profilers}

    def as_dict(self) -> dict[str, Any]:
        """Everything, and which network it is."""
        return {
            "network": self.target.name,
            "class": type(self.target.network).__name__,
            "image_shape": list(self.target.image_shape),
            **self.profile(),
        }


def measure(
    targets: Sequence[Target],
    device: torch.device,
    batch_size: int = 128,
    seconds: float = 1.0,
    variants: tuple[Variant, ...] = ("eager",),
    thop_style: bool = False,
) -> list[Costs]:
    """Profile copies of all networks on `device`; their latencies in turns, so that a busy moment does not hit one.

    Args:
        targets: the networks, which stay where they are.
        device: where they are measured.
        batch_size: beside batch 1.
        seconds: to time each batch size of each network and variant.
        variants: how to run them.
        thop_style: also count multiply-adds as the thop package does.
    """
    all_costs = [
        Costs(target, MACsProfiler(thop_style), ModelSizeProfiler(),
              LatencyProfiler(batch_size, seconds, variants), EnergyProfiler(batch_size))
        for target in targets
    ]  # fmt: skip
    for costs in all_costs:
        for profiler in (costs.macs, costs.size):
            profiler.profile(costs.target.network, costs.target.image_shape, device)
    _time(all_costs, device)
    for costs in all_costs:
        costs.energy.profile(costs.target.network, costs.target.image_shape, device)
    return all_costs


def _time(all_costs: Sequence[Costs], device: torch.device) -> None:
    """Time all networks in turns, or alone where that fails: one of them, at one batch size, is too much."""
    together = _time_in_turns(all_costs, device)
    if isinstance(together, list):
        for costs, result in zip(all_costs, together, strict=True):
            costs.latency.result = result
        return
    # here the copies, which the error's traceback kept alive, are gone, and a GPU can have their memory back
    log.warning("the networks are timed one after the other, because together that failed: %s", together)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    for costs in all_costs:
        costs.latency.profile(costs.target.network, costs.target.image_shape, device)


def _time_in_turns(all_costs: Sequence[Costs], device: torch.device) -> list[LatencyProfile] | str:
    """Return the latencies, or why there are none."""
    try:
        with ExitStack() as copies:
            networks = [copies.enter_context(isolated(costs.target.network, device)) for costs in all_costs]
            images = [
                noise_image(network, costs.target.image_shape)
                for network, costs in zip(networks, all_costs, strict=True)
            ]
            return all_costs[0].latency.measure_together(list(zip(networks, images, strict=True)))
    except Exception as error:  # any network may be named here, and it can do anything
        return str(error)
