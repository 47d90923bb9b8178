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
)
from kdlab.profiling.isolation import isolated, noise_image
from kdlab.profiling.latency import Variant
from kdlab.verbs.targets import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Costs:
    """What one network costs.

    Attributes:
        target: the network.
        profilers: with their results.
    """

    target: Target
    profilers: tuple[MACsProfiler, ModelSizeProfiler, LatencyProfiler, EnergyProfiler]

    def metrics(self) -> dict[str, float]:
        """All figures by their stable names."""
        return {name: value for profiler in self.profilers for name, value in profiler.as_metrics().items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything, as `result.json` has it under ``profile``."""
        return {
            "network": self.target.name,
            "class": type(self.target.network).__name__,
            "image_shape": list(self.target.image_shape),
            **{profiler.section: profiler.as_dict() for profiler in self.profilers},
        }


def measure(
    targets: Sequence[Target],
    device: torch.device,
    batch_size: int = 128,
    seconds: float = 1.0,
    variants: tuple[Variant, ...] = ("eager",),
) -> list[Costs]:
    """Profile all networks on `device`; their latencies in turns, so that a busy moment does not hit one alone."""
    all_costs = []
    for target in targets:
        target.network.to(device)
        latency = LatencyProfiler(batch_size, seconds, variants)
        costs = Costs(target, (MACsProfiler(), ModelSizeProfiler(), latency, EnergyProfiler(batch_size)))
        for profiler in costs.profilers[:2]:
            profiler.profile(target.network, target.image_shape)
        all_costs.append(costs)
    _time_in_turns(all_costs)
    for costs in all_costs:
        costs.profilers[3].profile(costs.target.network, costs.target.image_shape)
    return all_costs


def _time_in_turns(all_costs: Sequence[Costs]) -> None:
    profilers = [costs.profilers[2] for costs in all_costs]
    try:
        with ExitStack() as copies:
            networks = [copies.enter_context(isolated(costs.target.network)) for costs in all_costs]
            images = [
                noise_image(network, costs.target.image_shape)
                for network, costs in zip(networks, all_costs, strict=True)
            ]
            results = profilers[0].measure_together(list(zip(networks, images, strict=True)))
    except Exception as error:  # one of them, at one batch size; alone, it is not measured and the others are
        log.warning("the networks are timed one after the other, because together that failed: %s", error)
        for costs, profiler in zip(all_costs, profilers, strict=True):
            profiler.profile(costs.target.network, costs.target.image_shape)
    else:
        for profiler, result in zip(profilers, results, strict=True):
            profiler.result = result
