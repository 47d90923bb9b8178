"""How the students of a study answer, beside their teachers: by class, by confidence, to wrong labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from kdlab.analysis import Calibration, Confusion
from kdlab.analysis.calibration import ReliabilityBins
from kdlab.analysis.figures import confusion_matrices, per_class_accuracy, reliability_diagram
from kdlab.run.summary import read_result
from kdlab.studies.canvas import COLOURS, Drawing, LeftOut, Picture, new_figure, noted_seeds
from kdlab.studies.loose import printable
from kdlab.studies.plan import PlannedRun
from kdlab.studies.results import Results, Row, lookup
from kdlab.studies.selection import best_cells, select
from kdlab.studies.statistics import Summary

CHOSEN = (
    "The cell is the one of its variant with the highest mean test accuracy, or what a search selected: an "
    "illustration, not a result."
)
MOST_CELLS = 24  # lines of a figure that can still be read
NOT_ANALYSED = "no run was analysed; python -m kdlab analyze RUN, then report again"
RATES = {"corrected_rate": ("true class", "o"), "memorised_rate": ("wrong label it was given", "s")}


def answer_figures(results: Results) -> Iterator[tuple[str, Picture]]:
    """For each variant confusion matrices, accuracy by class and reliability; for the study the wrong labels."""
    best = best_cells(select(results))
    for variant, cells in results.variants.items():
        # a search has selected its cell without test images
        rows = cells.get(best.get(variant, "")) or max(cells.values(), key=_accuracy)
        yield from _by_class(results, variant, rows)
        yield from _reliability(results, variant, [*rows, *(row for other in cells.values() for row in other)])
    yield "wrong_labels", wrong_labels(results)


def _accuracy(rows: Sequence[Row]) -> float:
    return fmean(row.accuracy for row in rows)


def teacher_of(results: Results, row: Row) -> Row | str:
    """The run that trained the teacher of a run, or why there is none.

    A study knows it by its plan; of other runs it lies beside the weights that they learnt from.
    """
    teacher = row.result.get("teacher")
    if teacher is None:
        return "there is no teacher"
    found: Row | None = None
    if row.run.needs:
        found = next((one for one in results.teachers if one.run.id in row.run.needs), None)
    elif teacher.get("checkpoint"):
        found = _run_at(results, Path(teacher["checkpoint"]).parent.resolve())
    if found is None:
        return "the run of the teacher was not found"
    if lookup(found.result, "student.weights_sha256") != teacher.get("weights_sha256"):
        return "no single run has trained the teacher"
    return found


def _run_at(results: Results, folder: Path) -> Row | None:
    """The run of a folder, which may be none of the results."""
    known = next((row for row in results.rows if row.folder.resolve() == folder), None)
    path = folder / "result.json"
    result = read_result(path)
    if known is not None or result is None:
        return known
    seed, name = result.get("seed"), printable(folder.name)
    run = PlannedRun(name, "teacher", name, {}, seed if isinstance(seed, int) else 0, (), ())
    row = Row(run, folder, {}, result)
    return replace(row, metrics={key: value for key in results.plan.metrics if (value := row.number(key)) is not None})


def confusion_of(results: Sequence[Mapping[str, Any]]) -> Confusion | None:
    """The confusion matrices of several runs, added; None where one has none."""
    matrices = [lookup(result, "student.confusion_matrix") for result in results]
    if any(matrix is None for matrix in matrices):
        return None
    return Confusion.from_matrix(np.sum([np.array(matrix, dtype=np.int64) for matrix in matrices], axis=0))


def _by_class(results: Results, variant: str, rows: Sequence[Row]) -> Iterator[tuple[str, Picture]]:
    names = f"{variant}_confusion", f"{variant}_accuracy_by_class"
    teacher = teacher_of(results, rows[0])
    if isinstance(teacher, str):
        yield from ((name, LeftOut(teacher)) for name in names)
        return
    both = confusion_of([row.result for row in rows]), confusion_of([teacher.result])
    student, taught_by = both
    if student is None or taught_by is None:
        yield from ((name, LeftOut("a result has no confusion matrix")) for name in names)
        return
    used = (*rows, teacher)
    where = f"of {rows[0].cell}, all {len(rows)} seeds together, and of its teacher, on the test images. {CHOSEN}"
    yield (
        names[0],
        Drawing(
            confusion_matrices(student, taught_by), f"Confusion: {rows[0].cell}", f"Confusion matrices {where}", used
        ),
    )
    yield (
        names[1],
        Drawing(
            per_class_accuracy(student, taught_by),
            f"Accuracy by class: {rows[0].cell}",
            f"Accuracy by class {where}",
            used,
        ),
    )


def _reliability(results: Results, variant: str, rows: Sequence[Row]) -> Iterator[tuple[str, Picture]]:
    """Reliability of the student, and of a teacher where there is one, in the first run that was analysed."""
    for row in rows:
        found = _calibrations(row.folder)
        for role, calibration in found.items():
            title = f"{role} of {row.run.label}" if role == "teacher" else row.run.label
            caption = (
                f"Accuracy against confidence of the {role} of one run, {row.run.label}, on {calibration.n} test "
                "images. Below the diagonal it is overconfident."
            )
            teacher = teacher_of(results, row) if role == "teacher" else ""
            used = (row,) if isinstance(teacher, str) else (row, teacher)
            drawn = Drawing(reliability_diagram(calibration, role), f"Reliability: {title}", caption, used)
            yield f"{variant}_reliability_{role}", drawn
        if found:
            return
    yield f"{variant}_reliability", LeftOut(NOT_ANALYSED)


def _calibrations(folder: Path) -> dict[str, Calibration]:
    """Role -> its calibration on the test images, as `analyze` has left it."""
    try:
        content = json.loads((folder / "analysis" / "analysis.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    roles = lookup(content, "splits.test.calibration") or {}
    return {
        role: Calibration(**{**found, "bins": ReliabilityBins(**found["bins"])})
        for role, found in roles.items()
        if found is not None
    }


def wrong_labels(results: Results) -> Picture:
    """What the students answer to training images with a wrong label: its true class, or what they were told."""
    cells = {
        cell: known
        for cell, rows in results.cells_and_teachers.items()
        if (known := [row for row in rows if all(_rate(row, rate) is not None for rate in RATES)])
    }
    if not cells:
        noisy = any(lookup(row.result, "protocol.n_noisy_labels") for row in results.rows)
        return LeftOut("no run was asked about its wrong labels" if noisy else "no training label is wrong")
    if len(cells) > MOST_CELLS:
        return LeftOut(f"{len(cells)} cells do not fit into one figure; see {', '.join(RATES)} in result.json")
    rows = [row for known in cells.values() for row in known]
    students = [row for row in rows if row.run.role == "student"] or rows
    figure, axis = new_figure(height_cm=2.5 + 0.6 * len(cells))
    for (rate, (words, marker)), colour in zip(RATES.items(), COLOURS, strict=False):
        summaries = [Summary.of([100 * (_rate(row, rate) or 0.0) for row in known]) for known in cells.values()]
        axis.errorbar(
            [summary.mean for summary in summaries], range(len(cells)), color=colour, marker=marker, markersize=4,
            xerr=[summary.half_width or 0.0 for summary in summaries], linestyle="none", elinewidth=0.8, label=words,
        )  # fmt: skip
    axis.set_yticks(range(len(cells)), list(cells))
    axis.set(xlim=(-3, 103), ylim=(len(cells) - 0.5, -0.5), xlabel="% of the training images with a wrong label")
    axis.set_title(f"{results.plan.name}: the answer to a wrong label, {noted_seeds(students)}", loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    caption = (
        "Answers to training images whose label is wrong: the true class (the student sees through the noise) or the "
        "wrong label (it has learnt it by heart); the rest is a third class. Mean over seeds, 95% Student-t interval."
    )
    return Drawing(figure, "Answers to wrong labels", caption, tuple(rows))


def _rate(row: Row, rate: str) -> float | None:
    """A share of `RATES`, 0 ... 1, as the run has found it at its end, or as `analyze` has; None without either."""
    found = row.number(f"student.noise.{rate}")
    return found if found is not None else row.number(f"analysis.train.noise_{rate}")
