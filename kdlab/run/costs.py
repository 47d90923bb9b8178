"""What the student costs, in the result and in the table at a run's end."""

from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch import Callback
from rich.table import Table
from rich.text import Text

from kdlab.profiling import (
    EnergyProfiler,
    LatencyProfiler,
    MACsProfiler,
    ModelSizeProfiler,
    Profiler,
    Reporter,
    TrainingCost,
)
from kdlab.profiling.table import notes_on, shown_rows

COLUMNS = ("parameters", "size MiB", "MACs M", "MACs M thop style", "ms p50 at 1", "ms p99 at 1", "mJ/image")


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
    """Return a table of the student's costs, and below it what is missing or not to be trusted and why.

    None where nothing was profiled. It has the most important columns of the table of `profile`.
    """
    profile = result.get("profile")
    if profile is None:
        return None
    table = Table(title=f"What {result['student']['network']} costs on {result['environment']['device']}")
    table.title_justify, table.title_style = "left", ""
    rows = shown_rows({result["student"]["network"]: profile})
    important = {*COLUMNS, "network"} if len(rows) > 1 else set(COLUMNS)
    columns = [column for column in rows[0] if column in important or column.startswith("images/s")]
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    if notes := notes_on(profile):  # as they are: "[nvml]" is no style
        table.caption, table.caption_justify, table.caption_style = Text("\n".join(notes)), "left", ""
    return table
