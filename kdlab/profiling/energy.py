"""How much energy one image costs."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlab.profiling.base import Profiler, require_at_least
from kdlab.profiling.energy_windows import EnergyWindows, Stand, Timetable
from kdlab.profiling.isolation import describe_device, noise_batch, synchronize
from kdlab.profiling.meters import find_meter
from kdlab.profiling.results import Measurement, NotMeasured

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnergyProfile(Measurement):
    """Energy of inference, read from the device's own counter. It is no power of the whole machine ("MLPerf power").

    Attributes:
        energy_mj_per_image: gross: all that the device used.
        energy_mj_per_batch: gross.
        net_energy_mj_per_image: without what the device would have used idle, in the mean of the idle windows; None,
            like all that depends on idling, where the counter stood still in one of them.
        net_energy_mj_per_batch: without what the device would have used idle.
        energy_bound_mj_per_image: how wrong the gross figure can be because the counter advances in steps.
        net_energy_bound_mj_per_image: how wrong the net figure can be: steps of the counter under load and idle,
            and half of the idle drift.
        net_reason: why there is no net figure; None where there is.
        quantisation_bound: twice the counter's step over the window, relative.
        energy_spread: largest minus smallest window, relative to the mean.
        mean_watts: under load.
        idle_watts: in the mean of the idle windows before and after.
        idle_drift_watts: difference of the two.
        batch_size: images per iteration.
        dtype: of weights and images; no autocast.
        iterations: of each window.
        window_s: seconds of each window.
        counter_step_ms: longest time between two advances of the counter.
        meter: the counter.
        device: that ran the network.
        conditions: of the device when the last window under load had just ended.
        notes: what else is in the figures, such as other processes on the device.
    """

    energy_mj_per_image: float
    energy_mj_per_batch: float
    net_energy_mj_per_image: float | None
    net_energy_mj_per_batch: float | None
    energy_bound_mj_per_image: float
    net_energy_bound_mj_per_image: float | None
    net_reason: str | None
    quantisation_bound: float
    energy_spread: float
    mean_watts: float
    idle_watts: float | None
    idle_drift_watts: float | None
    batch_size: int
    dtype: str
    iterations: tuple[int, ...]
    window_s: tuple[float, ...]
    counter_step_ms: float
    meter: str
    device: str
    conditions: dict[str, Any]
    notes: tuple[str, ...]

    def metrics(self) -> dict[str, float | None]:
        """Gross and net energy with their bounds, spread and power."""
        names = ("energy_mj_per_image", "energy_mj_per_batch", "net_energy_mj_per_image", "net_energy_mj_per_batch",
                 "energy_bound_mj_per_image", "net_energy_bound_mj_per_image", "energy_spread", "mean_watts",
                 "idle_watts")  # fmt: skip
        return {name: getattr(self, name) for name in names}


class EnergyProfiler(Profiler):
    """Measure the energy of one image in mJ, gross and net of idle, where the machine has a counter for it.

    The NVML counter of the GPU that holds the network, found by UUID, or the RAPL counters of the processors. On a
    machine without one the result is "not measured" with the reason, at once; nothing is estimated. With one it
    takes about a minute at the default times. The network runs with its weights as they are, without autocast.

    Args:
        batch_size: images per iteration.
        window_s: seconds of each window, 5 at least: many counters advance only ten times a second, and a window is
            wrong by up to two of their steps.
        windows: number of windows under load.
        cooldown_s: seconds of rest after each window.
        warmup_s: seconds of load before the first window.

    Raises:
        UsageError: if one of them is too small.
    """

    section = "energy"
    headline = ("energy_mj_per_image", "energy_mj_per_batch", "net_energy_mj_per_image", "net_energy_mj_per_batch")

    def __init__(
        self,
        batch_size: int = 128,
        window_s: float = 5.0,
        windows: int = 5,
        cooldown_s: float = 2.0,
        warmup_s: float = 3.0,
    ) -> None:
        super().__init__()
        require_at_least("batch_size", batch_size, 1, "images per iteration; 128 is usual")
        require_at_least("window_s", window_s, 5, "many counters advance only ten times a second")
        require_at_least("windows", windows, 2, "one window has no spread")
        require_at_least("cooldown_s", cooldown_s, 0, "seconds of rest; 2 is usual")
        require_at_least("warmup_s", warmup_s, 0, "seconds of load; 3 is usual")
        self.batch_size = batch_size
        self.timetable = Timetable(window_s, windows, cooldown_s, warmup_s)

    @torch.inference_mode()
    def measure(self, network: nn.Module, image: Tensor) -> EnergyProfile | NotMeasured:
        """Return the energy of inference, or why there is no figure."""
        meter = find_meter(image.device)
        if isinstance(meter, NotMeasured):
            return meter
        stand = Stand(meter, _repeat(network, noise_batch(image, self.batch_size)))
        windows = stand.measure(self.timetable)
        if isinstance(windows, NotMeasured):
            return windows
        dtype = str(image.dtype).removeprefix("torch.")
        device = describe_device(image.device)
        result = summarize(windows, self.batch_size, dtype=dtype, meter=meter.name, device=device)
        for note in result.notes:
            log.warning("energy of %s: %s", type(network).__name__, note)
        return result


def _repeat(network: nn.Module, batch: Tensor) -> Callable[[int], None]:
    def run(iterations: int) -> None:
        for _ in range(iterations):
            network(batch)
        synchronize(batch.device)

    return run


def summarize(windows: EnergyWindows, batch_size: int, *, dtype: str, meter: str, device: str) -> EnergyProfile:
    """Turn windows into energy per image and how sure it is."""
    per_image = [w.energy_mj / w.iterations / batch_size for w in windows.load]
    gross = statistics.fmean(per_image)
    shortest = min(w.seconds for w in (windows.idle_before, windows.idle_after, *windows.load))
    bound = 2 * windows.step_s / shortest
    net = _Net.of(windows, batch_size)
    return EnergyProfile(
        energy_mj_per_image=gross,
        energy_mj_per_batch=gross * batch_size,
        net_energy_mj_per_image=None if net is None else gross - net.idle_mj,
        net_energy_mj_per_batch=None if net is None else (gross - net.idle_mj) * batch_size,
        energy_bound_mj_per_image=bound * gross,
        net_energy_bound_mj_per_image=None if net is None else bound * (gross + net.idle_mj) + net.drift_mj,
        net_reason=f"{meter} stood still while the device was idle" if net is None else None,
        quantisation_bound=bound,
        energy_spread=(max(per_image) - min(per_image)) / gross,
        mean_watts=sum(w.energy_mj for w in windows.load) / 1e3 / sum(w.seconds for w in windows.load),
        idle_watts=None if net is None else net.idle_watts,
        idle_drift_watts=None if net is None else net.drift_watts,
        batch_size=batch_size,
        dtype=dtype,
        iterations=tuple(w.iterations for w in windows.load),
        window_s=tuple(w.seconds for w in windows.load),
        counter_step_ms=1e3 * windows.step_s,
        meter=meter,
        device=device,
        conditions=windows.conditions,
        notes=_notes(windows.conditions),
    )


class _Net(NamedTuple):
    """What idling would have cost.

    Attributes:
        idle_watts: mean of both idle windows.
        drift_watts: difference of the two.
        idle_mj: while one image is worked on.
        drift_mj: half of the drift in that time.
    """

    idle_watts: float
    drift_watts: float
    idle_mj: float
    drift_mj: float

    @classmethod
    def of(cls, windows: EnergyWindows, batch_size: int) -> _Net | None:
        """Return it, or None where the counter does not know."""
        if windows.stood_still_idle:
            return None
        seconds = statistics.fmean(w.seconds / w.iterations / batch_size for w in windows.load)
        before, after = windows.idle_before.watts, windows.idle_after.watts
        watts, drift = statistics.fmean((before, after)), after - before
        return cls(watts, drift, 1e3 * watts * seconds, 1e3 * abs(drift) / 2 * seconds)


def _notes(conditions: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader of the figures must know of the device's state."""
    found = []
    if others := conditions.get("other_processes"):
        found.append(f"{others} other process(es) on the device; what they used is in the figures")
    if conditions.get("mig"):
        found.append("the board is cut into MIG slices; the figures are of the whole board")
    return tuple(found)
