"""The runs as a tidy table: one line per run, one column per quantity, as CSV and Parquet."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kdlab.atomic import atomic_write
from kdlab.extras import installed
from kdlab.studies.costs import COSTS, parameters
from kdlab.studies.results import PROTOCOL, Results, Row, lookup
from kdlab.studies.spent import spent

VERSIONS = ("kdlab", "torch", "lightning", "torchvision", "numpy")
ASKED = ("images_answered", "images_computed")  # by a teacher that remembers
SCORES = ("precision", "recall", "f1")
Line = dict[str, Any]


def tidy(results: Results) -> list[Line]:
    """One line per run, teachers too: grid keys, seed, metrics, costs and origin; None where there is no value."""
    keys = list(dict.fromkeys(key for run in results.plan.students for key in run.values))
    return [_line(row, keys, results.plan.metrics) for row in (*results.teachers, *results.rows)]


def _line(row: Row, keys: Sequence[str], metrics: Sequence[str]) -> Line:
    run, origin = row.run, row.origin
    return {
        "run": run.id,
        "role": run.role,
        "variant": run.variant,
        **{key: run.values.get(key) for key in keys},
        "seed": run.seed,
        **{metric: row.metrics.get(metric) for metric in metrics},
        "train_seconds": row.train_seconds,
        "train_energy_j": spent(row, "joules"),
        "train_macs": spent(row, "macs"),
        **{f"teacher_{count}": row.number(f"teacher.{count}") for count in ASKED},
        "parameters": parameters(row),
        **{cost.column: cost.of(row).value for cost in COSTS},
        **{key: row.protocol[key] for key in PROTOCOL},
        "git_commit": origin.get("git_commit"),
        **{name: origin.get("versions", {}).get(name) for name in VERSIONS},
        "device": origin.get("device"),
        "finished": row.finished or None,
    }


def by_class(results: Results) -> list[Line]:
    """One line per cell, or teacher, and class: precision, recall and F1 on the test images, means over the runs."""
    lines = []
    for cell, rows in results.cells_and_teachers.items():
        reports = [report for row in rows if (report := lookup(row.result, "student.per_class"))]
        for number in range(len(reports[0]["f1"]) if reports else 0):
            scores = {score: fmean(report[score][number] for report in reports) for score in SCORES}
            lines.append({"cell": cell, "class": number, "n": len(reports), **scores})
    return lines


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """Write the table with all digits, atomically; an empty field is no value."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def write_parquet(lines: Sequence[Line], path: Path) -> None:
    """Write the table as Parquet, atomically, where pyarrow is installed.

    Without it a file of before goes: it would tell of other runs than the CSV beside it.
    """
    if not installed("pyarrow"):
        path.unlink(missing_ok=True)
        return
    pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    columns = {name: _one_type([line[name] for line in lines]) for name in lines[0]}
    with atomic_write(path) as part:
        parquet.write_table(pyarrow.table(columns), part)


def _one_type(values: Sequence[Any]) -> Sequence[Any]:
    """The values of a column of numbers, or of text: a grid may hold both, ``0.5`` and ``none``."""
    known = [value for value in values if value is not None]
    if len({isinstance(value, bool) for value in known}) < 2 and all(
        isinstance(value, (int, float)) for value in known
    ):
        whole = all(isinstance(value, int) for value in known)
        return values if whole else [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]
