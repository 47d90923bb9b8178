"""What the student costs, in the result and in the table at a run's end."""

from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch import Callback
from rich.table import Table

from kdlab.profiling import (
    EnergyProfiler,
    LatencyProfiler,
    MACsProfiler,
    ModelSizeProfiler,
    Profiler,
    Reporter,
    TrainingCost,
)

MIB = 2**20


def default_profilers(given: Sequence[Callback]) -> list[Callback]:
    """Return the profilers that every run has, but for those of a kind that the user has given already."""
    kinds = (LatencyProfiler, MACsProfiler, ModelSizeProfiler, EnergyProfiler, TrainingCost)
    return [kind() for kind in kinds if not any(isinstance(callback, kind) for callback in given)]


def cost_report(callbacks: Iterable[Callback]) -> dict[str, Any]:
    """Return ``profile``, the costs of the student, and ``training_cost``, as far as somebody measured them."""
    report: dict[str, Any] = {}
    for callback in callbacks:
        if isinstance(callback, Profiler):
            report.setdefault("profile", {})[callback.section] = callback.as_dict()
        elif isinstance(callback, Reporter) and callback.result is not None:
            report[callback.section] = callback.as_dict()
    return report


def cost_table(result: dict[str, Any]) -> Table | None:
    """Return a table of the student's costs, and below it why there is no energy; None where nothing was profiled."""
    profile = result.get("profile")
    if profile is None:
        return None
    table = Table(title=f"What {result['student']['network']} costs on {result['environment']['device']}")
    table.title_justify, table.title_style = "left", ""
    cells = _cells(profile)
    for header in cells:
        table.add_column(header, justify="right")
    table.add_row(*cells.values())
    reason = profile.get("energy", {}).get("reason")
    if reason:
        table.caption, table.caption_justify, table.caption_style = f"energy: not measured ({reason})", "left", ""
    return table


def _cells(profile: dict[str, Any]) -> dict[str, str]:
    runs = {run["batch_size"]: run for run in profile.get("latency", {}).get("runs", ()) if run["variant"] == "eager"}
    one = runs.get(1, {})
    cells = {
        "parameters": _number(profile.get("size", {}).get("parameters"), "{:,}"),
        "size MiB": _number(profile.get("size", {}).get("size_bytes"), "{:.3f}", 1 / MIB),
        "MACs M": _number(profile.get("macs", {}).get("macs"), "{:,.3f}", 1e-6),
        "ms p50": _number(one.get("latency_ms_p50"), "{:.3f}"),
        "ms p99": _number(one.get("latency_ms_p99"), "{:.3f}"),
    }
    for size, run in runs.items():
        if size != 1:
            cells[f"images/s at {size}"] = _number(run.get("throughput_images_per_s"), "{:,.0f}")
    cells["mJ/image"] = _number(profile.get("energy", {}).get("energy_mj_per_image"), "{:.3f}")
    return cells


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "n/a" if value is None else form.format(value if factor == 1 else value * factor)
