"""What the runs of a study left: one row per finished run, all of one protocol."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdlab.atomic import atomic_write
from kdlab.errors import IntegrityError, UsageError
from kdlab.studies.plan import Plan, PlannedRun, cell_label

# what must be equal for numbers to stand in one table: field of the protocol in result.json -> what it is
PROTOCOL = {
    "name": "data set",
    "fingerprint": "training data (SHA-256)",
    "val_fraction": "validation share",
    "split_seed": "split_seed",
    "selection": "selected epoch",
    "n_tested": "number of test images",
}
VERSIONS = ("kdlab", "torch", "lightning", "torchvision", "numpy")
Protocol = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        run: of the plan.
        metrics: key of result.json -> value.
        protocol: what `PROTOCOL` names.
        origin: where the numbers were made: commit, versions, device.
        train_seconds: of the training.
    """

    run: PlannedRun
    metrics: Mapping[str, float]
    protocol: Protocol
    origin: Mapping[str, Any]
    train_seconds: float | None

    @property
    def cell(self) -> str:
        """Label of the cell it belongs to."""
        return cell_label(self.run.variant, self.run.values)


@dataclass(frozen=True)
class Results:
    """The finished runs of a study.

    Attributes:
        folder: of the study.
        plan: of the study.
        rows: of the finished students, in the order of the plan.
        teachers: rows of the finished teachers.
        missing: runs that are not done.
    """

    folder: Path
    plan: Plan
    rows: tuple[Row, ...]
    teachers: tuple[Row, ...]
    missing: tuple[PlannedRun, ...]

    @property
    def protocol(self) -> Protocol:
        """Of all rows."""
        return self.rows[0].protocol

    def by_cell(self, metric: str) -> dict[str, dict[int, float]]:
        """Label of each cell -> seed -> value."""
        values: dict[str, dict[int, float]] = {}
        for row in self.rows:
            values.setdefault(row.cell, {})[row.run.seed] = row.metrics[metric]
        return values


def read_results(folder: Path) -> Results:
    """Read the plan of a study and what its runs left.

    Raises:
        UsageError: if the folder holds no study, no run is done, or a metric is nowhere in a result.
        IntegrityError: if runs were tested in different ways or trained on different data.
    """
    plan = Plan.read(folder)
    rows, missing = [], []
    for run in plan.runs:
        path = folder / run.id / "result.json"
        if path.is_file():
            rows.append(_row(run, json.loads(path.read_text(encoding="utf-8")), plan.metrics))
        else:
            missing.append(run)
    students = tuple(row for row in rows if row.run.role == "student")
    if not students:
        raise UsageError(f"{folder} has no finished run yet; run the study first: python -m kdlab study FILE")
    for row in students[1:]:
        _check_same_protocol(students[0], row)
    teachers = tuple(row for row in rows if row.run.role == "teacher")
    return Results(folder, plan, students, teachers, tuple(missing))


def write_csv(results: Results, path: Path) -> None:
    """Write one line per run, teachers too, with grid keys, seed, metrics and origin, atomically."""
    keys = list(dict.fromkeys(key for run in results.plan.students for key in run.values))
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        metrics = results.plan.metrics
        writer.writerow(["run", "role", "variant", *keys, "seed", *metrics, "train_seconds",
                         *PROTOCOL, "git_commit", *VERSIONS, "device"])  # fmt: skip
        for row in (*results.teachers, *results.rows):
            run, origin = row.run, row.origin
            writer.writerow([run.id, run.role, run.variant, *(run.values.get(key, "") for key in keys), run.seed,
                             *(row.metrics.get(metric, "") for metric in metrics), row.train_seconds,
                             *(row.protocol[key] for key in PROTOCOL), origin.get("git_commit"),
                             *(origin.get("versions", {}).get(name) for name in VERSIONS),
                             origin.get("device")])  # fmt: skip


def curve(folder: Path, metric: str) -> dict[int, float]:
    """Epoch (from 1) -> value of a metric of `metrics.csv`; empty if it has none."""
    values = {}
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get(metric):
                values[int(row["epoch"]) + 1] = float(row[metric])
    return values


def _row(run: PlannedRun, result: Mapping[str, Any], metrics: Sequence[str]) -> Row:
    values = {}
    for metric in metrics:
        value = _lookup(result, metric)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            values[metric] = float(value)
        elif run.role == "student":  # a teacher has no agreement with a teacher, for instance
            raise UsageError(f"metrics: {metric} is no number in the result of {run.label}; {_numbers(result)}")
    protocol = {key: result["protocol"].get(key) for key in PROTOCOL}
    return Row(run, values, protocol, result.get("environment", {}), result.get("train_seconds"))


def _lookup(node: Any, key: str) -> Any:  # noqa: ANN401
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _numbers(result: Mapping[str, Any]) -> str:
    tested = result.get("student", {}).get("test", {})
    return f"there are: {', '.join(f'student.test.{name}' for name in tested)} and other keys of result.json"


def _check_same_protocol(first: Row, row: Row) -> None:
    for key, meaning in PROTOCOL.items():
        if first.protocol[key] != row.protocol[key]:
            raise IntegrityError(
                f"{meaning} is {first.protocol[key]} in {first.run.id} ({first.run.label}) and {row.protocol[key]} in "
                f"{row.run.id} ({row.run.label}): one table cannot hold both; delete the runs that are wrong and run "
                "the study again"
            )
