"""Energy counters of the machine: the GPU's through NVML, the processor's through RAPL.

Only counters that accumulate energy are used. Power readings are not: on recent boards they see about a quarter of
the time (Yang, Adamek & Armour, Part-time Power Measurements, 2023).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from kdlab.profiling.results import NotMeasured
from kdlab.profiling.sharing import shared_device

RAPL = Path("/sys/class/powercap")


class Meter(Protocol):
    """A counter of the energy that a device has used since some moment in the past."""

    @property
    def name(self) -> str:
        """What counts, and for which device."""

    def energy_mj(self) -> float:
        """Return the counter in millijoules; it never falls."""

    def conditions(self) -> dict[str, Any]:
        """Return what explains a figure: temperature, clocks, limits, other users; None where it is not known."""


def find_meter(device: torch.device) -> Meter | NotMeasured:
    """Return the meter of `device`, or why there is none, or none for this process alone."""
    meter: Meter | NotMeasured
    if device.type == "cuda":
        meter = nvml_meter(str(torch.cuda.get_device_properties(device).uuid))  # type: ignore[attr-defined, unused-ignore]
    elif device.type == "cpu":
        meter = rapl_meter(RAPL)
    else:
        return NotMeasured(f"kdlab knows no energy counter of {device.type} devices")
    return meter if isinstance(meter, NotMeasured) else shared_device() or meter


class UnwrappedCounter:
    """A counter that starts again at 0, made one that never falls. Read it more often than it wraps.

    Args:
        read: returns the raw counter.
        capacity: the value at which it starts again.
    """

    def __init__(self, read: Callable[[], float], capacity: float) -> None:
        self._read = read
        self._capacity = capacity
        self._last = read()
        self._wrapped = 0.0

    def __call__(self) -> float:
        """Return the raw counter plus all that was lost by starting again."""
        now = self._read()
        if now < self._last:
            self._wrapped += self._capacity
        self._last = now
        return now + self._wrapped


# -- processors -------------------------------------------------------------------------------------------------


class RAPLMeter:
    """Sum of the package counters of all processors, memory apart.

    Args:
        zones: folders of the packages, with ``energy_uj`` and ``max_energy_range_uj``.
    """

    def __init__(self, zones: list[Path]) -> None:
        self.name = "RAPL " + " + ".join((zone / "name").read_text().strip() for zone in zones)
        self._counters = [
            UnwrappedCounter(lambda zone=zone: _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj"))  # type: ignore[misc]
            for zone in zones
        ]

    def energy_mj(self) -> float:
        """Return the sum of the counters in millijoules."""
        return sum(counter() for counter in self._counters) / 1e3

    def conditions(self) -> dict[str, Any]:
        """Everything that runs on the processors is in the figure; the load says how much that was."""
        return {"load_1_min": os.getloadavg()[0], "cpu_count": os.cpu_count()}


def rapl_meter(root: Path) -> RAPLMeter | NotMeasured:
    """Return the meter of this machine's processors, or why there is none."""
    zones = [zone for zone in sorted(root.glob("*-rapl:*")) if _is_package(zone)]
    if not zones:
        return NotMeasured(f"no RAPL energy counter in {root}")
    try:
        return RAPLMeter(zones)
    except OSError as error:
        return NotMeasured(f"RAPL is not readable ({error.strerror}); let an administrator run: "
                           f"chmod a+r {root}/*-rapl:*/energy_uj")  # fmt: skip


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return False


def _number(file: Path) -> float:
    return float(file.read_text())


# -- NVIDIA GPUs ------------------------------------------------------------------------------------------------


class NVMLMeter:
    """Board energy from the NVIDIA driver's counter (Volta and newer): chip, memory and regulators.

    Args:
        nvml: the module ``pynvml``, initialised.
        handle: NVML's of the device.
        uuid: of the device, as it stands in the name.
    """

    def __init__(self, nvml: Any, handle: Any, uuid: str) -> None:  # noqa: ANN401 (pynvml has no types)
        self._nvml = nvml
        self._handle = handle
        self.name = f"NVML total energy of {nvml.nvmlDeviceGetName(handle)} ({uuid})"

    def energy_mj(self) -> float:
        """Return the counter."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def conditions(self) -> dict[str, Any]:
        """Temperature, clock, power limit, other processes on the board, and whether it is cut into MIG slices."""
        nvml, ask = self._nvml, self._ask
        milliwatts = ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
        mig = ask(nvml.nvmlDeviceGetMigMode)
        return {
            "temperature_c": ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            "sm_clock_mhz": ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            "power_limit_w": None if milliwatts is None else milliwatts / 1e3,
            "other_processes": None if processes is None else sum(p.pid != os.getpid() for p in processes),
            "mig": None if mig is None else bool(mig[0]),  # the counter is of the board, not of a slice
        }

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 (pynvml has no types)
        """What this board does not know, or keeps to itself, is None."""
        try:
            return question(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def nvml_meter(uuid: str) -> NVMLMeter | NotMeasured:
    """Return the meter of the GPU that torch calls `uuid`, or why there is none.

    By UUID and not by number: CUDA_VISIBLE_DEVICES renumbers torch's devices and not NVML's.
    """
    import pynvml  # type: ignore[import-untyped, unused-ignore]

    uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        meter = NVMLMeter(pynvml, handle, uuid)
        meter.energy_mj()
    except pynvml.NVMLError as error:
        return NotMeasured(f"NVML has no energy counter for {uuid}: {error}")
    return meter
