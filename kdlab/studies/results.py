"""What the runs of a study left: one row per finished run, all of one protocol."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdlab.close_names import did_you_mean
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
TESTED_ON = ("name", "n_tested")
ACCURACY = "student.test.accuracy"  # every run has it
# what our own methods measure; the accuracies of members end in _accuracy
MEASURED = {
    "student.test": ("accuracy", "top5", "nll", "ece", "brier", "agreement", "teacher_kl", "same_wrong_rate",
                     "spearman", "disagreement"),
    "student.val": ("accuracy",),
    "student.noise": ("n_noisy", "corrected_rate", "memorised_rate"),
}  # fmt: skip
Protocol = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        run: of the plan.
        folder: of the run.
        metrics: key of result.json -> value.
        result: all of result.json.
    """

    run: PlannedRun
    folder: Path
    metrics: Mapping[str, float]
    result: Mapping[str, Any]

    @property
    def cell(self) -> str:
        """Label of the cell that the run belongs to."""
        return cell_label(self.run.variant, self.run.values)

    @property
    def protocol(self) -> Protocol:
        """The run's value of each field of `PROTOCOL`, which must be equal for numbers to stand in one table."""
        return protocol_of(self.result)

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where the numbers were made: commit, versions, device."""
        origin: Mapping[str, Any] = self.result.get("environment", {})
        return origin

    @property
    def train_seconds(self) -> float | None:
        """Time that the training took, seconds; None where it is not known."""
        return self.number("train_seconds")

    @property
    def accuracy(self) -> float:
        """Accuracy of the student on the test images, 0 ... 1."""
        value = self.number(ACCURACY)
        assert value is not None, self.folder  # as `read_row` has seen
        return value

    @property
    def finished(self) -> str:
        """Date and time of the last line of its log, by the clock of its machine; empty where there is no log."""
        try:
            lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        dates = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines, re.MULTILINE)
        return dates[-1] if dates else ""

    def number(self, key: str) -> float | None:
        """A finite number of result.json by its key; None where there is none."""
        value = lookup(self.result, key)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return value if is_number else None


@dataclass(frozen=True)
class Results:
    """The finished runs of a study.

    Attributes:
        folder: of the study.
        plan: of the study.
        rows: of the finished students, in the order of the plan.
        teachers: rows of the finished teachers.
        missing: runs that are not done.
        notes: what else a reader must know.
    """

    folder: Path
    plan: Plan
    rows: tuple[Row, ...]
    teachers: tuple[Row, ...]
    missing: tuple[PlannedRun, ...]
    notes: tuple[str, ...] = ()

    @property
    def protocol(self) -> Protocol:
        """The protocol that all rows share."""
        return self.rows[0].protocol

    @property
    def cells(self) -> dict[str, list[Row]]:
        """Label of each cell -> its runs."""
        cells: dict[str, list[Row]] = {}
        for row in self.rows:
            cells.setdefault(row.cell, []).append(row)
        return cells

    @property
    def cells_and_teachers(self) -> dict[str, list[Row]]:
        """`cells`, and beside them each teacher that was tested on the same images."""
        tested = [row for row in self.teachers if all(row.protocol[key] == self.protocol[key] for key in TESTED_ON)]
        return self.cells | {f"{row.run.variant} (teacher)": [row] for row in tested}

    @property
    def variants(self) -> dict[str, dict[str, list[Row]]]:
        """Name of each variant -> its cells."""
        variants: dict[str, dict[str, list[Row]]] = {}
        for cell, rows in self.cells.items():
            variants.setdefault(rows[0].run.variant, {})[cell] = rows
        return variants

    def by_cell(self, metric: str) -> dict[str, dict[int, float]]:
        """Label of each cell that has it -> seed -> value."""
        found = {
            cell: {row.run.seed: row.metrics[metric] for row in rows if metric in row.metrics}
            for cell, rows in self.cells.items()
        }
        return {cell: values for cell, values in found.items() if values}


def read_results(folder: Path) -> Results:
    """Read the plan of a study and what its runs left.

    Raises:
        UsageError: if the folder holds no study, no run is done, or a metric is nowhere in a result.
        IntegrityError: if runs were tested in different ways or trained on different data.
    """
    plan = Plan.read(folder)
    rows, missing = [], []
    for run in plan.runs:
        if (folder / run.id / "result.json").is_file():
            rows.append(read_row(run, folder / run.id, plan.metrics))
        else:
            missing.append(run)
    students = tuple(row for row in rows if row.run.role == "student")
    if not students:
        raise UsageError(f"{folder} has no finished run yet; run the study first: python -m kdlab study FILE")
    for metric in plan.metrics:  # a student without a teacher has no agreement with one, for instance
        if not any(metric in row.metrics for row in students):
            raise UsageError(f"metrics: {metric} is no number in any result; {_numbers(students[0].result)}")
    for row in students[1:]:
        _check_same_protocol(students[0], row)
    teachers = tuple(row for row in rows if row.run.role == "teacher")
    return Results(folder, plan, students, teachers, tuple(missing))


def read_row(run: PlannedRun, folder: Path, metrics: Sequence[str]) -> Row:
    """Read what a finished run left.

    Raises:
        UsageError: if its result lacks the accuracy, or, of a student, the first metric.
        IntegrityError: if its result cannot be read.
    """
    result = _read_result(folder / "result.json")
    row = Row(run, folder, {}, result)
    values = {metric: value for metric in metrics if (value := row.number(metric)) is not None}
    for metric in (ACCURACY, *metrics[:1]):
        if row.number(metric) is None and (run.role == "student" or metric == ACCURACY):
            raise UsageError(f"metrics: {metric} is no number in the result of {run.label}; {_numbers(result)}")
    return Row(run, folder, values, result)


def curve(folder: Path, metric: str) -> dict[int, float]:
    """Epoch (from 1) -> value of a metric of `metrics.csv`; empty if there is none."""
    values: dict[int, float] = {}
    path = folder / "metrics.csv"
    if not path.is_file():
        return values
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get(metric) and row.get("epoch"):
                values[int(row["epoch"]) + 1] = float(row[metric])
    return values


def lookup(node: Any, key: str) -> Any:  # noqa: ANN401
    """What stands under a key like ``student.test.accuracy``; None where nothing does."""
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def doubts_about(metric: str) -> str:
    """What to say of a metric that only a method of a user's own can have logged; empty of all others."""
    part, _, last = metric.rpartition(".")
    known = MEASURED.get(part)
    if known is None or last in known or last.endswith("_accuracy"):
        return ""
    meant = did_you_mean(metric, [f"{part}.{name}" for name in known])
    return f"{metric} is nothing that kdlab measures{meant}; a method of yours must log it"


def protocol_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was trained and tested, as far as it decides who can be compared with whom."""
    return {key: lookup(result, f"protocol.{key}") for key in PROTOCOL}


def _read_result(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise IntegrityError(f"{path} cannot be read; delete the run's folder and run it again")
    return content


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
