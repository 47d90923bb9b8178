"""The report of a study: summary.json, results.csv, tables.md and figures, made from its run folders alone."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdlab.atomic import atomic_write, write_text
from kdlab.studies.figures import draw_figures
from kdlab.studies.plan import compared_cells
from kdlab.studies.results import Results, read_results, write_csv
from kdlab.studies.statistics import FEW, PairedDifference, Summary, holm
from kdlab.studies.tables import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

FOLDER = "report"
FORMAT = 1


@dataclass(frozen=True)
class Compared:
    """One tested pair of cells."""

    metric: str
    cell: str
    against: str
    result: PairedDifference


def write_report(folder: Path) -> Results:
    """Write the report of the study in `folder` into its subfolder ``report``.

    The same runs give the same files, byte by byte.

    Raises:
        UsageError: if the folder holds no study, or none of its runs is done.
        IntegrityError: if its runs cannot stand in one table.
    """
    results = read_results(folder)
    compared = compare(results)
    cells = {metric: {cell: Summary.of(list(values.values())) for cell, values in results.by_cell(metric).items()}
             for metric in results.plan.metrics}  # fmt: skip
    fewest = min(summary.n for summary in cells[results.plan.metrics[0]].values())
    if fewest < FEW:
        log.warning("a cell has %d run(s): below %d seeds an interval says next to nothing", fewest, FEW)
    target = folder / FOLDER
    figures = draw_figures(results)
    write_csv(results, target / "results.csv")
    write_text(target / "summary.json", json.dumps(_summary(results, cells, compared), indent=1) + "\n")
    write_text(target / "tables.md", markdown(results, cells, compared, list(figures)))
    for old in set(target.glob("*.svg")) - {target / f"{name}.svg" for name in figures}:
        old.unlink()  # of an earlier version of the study
    for name, figure in figures.items():
        _save(figure, target / f"{name}.svg")
    return results


def compare(results: Results) -> list[Compared]:
    """Test all comparisons of the study on all its metrics, corrected over all pairs of a metric."""
    compared: list[Compared] = []
    for metric in results.plan.metrics:
        values = results.by_cell(metric)
        pairs = [(cell, against) for comparison in results.plan.comparisons
                 for chosen, against in [compared_cells(results.plan, comparison)] for cell in chosen]  # fmt: skip
        tests = [PairedDifference.of(values.get(cell, {}), values.get(other, {})) for cell, other in pairs]
        corrected = iter(holm([test.p for test in tests if test.p is not None]))
        for (cell, against), test in zip(pairs, tests, strict=True):
            p_holm = None if test.p is None else next(corrected)
            result = PairedDifference(test.seeds, test.difference, test.effect_size, test.p, p_holm)
            compared.append(Compared(metric, cell, against, result))
    return compared


def _summary(results: Results, cells: dict[str, dict[str, Summary]], compared: list[Compared]) -> dict[str, Any]:
    plan = results.plan
    runs = {cell: [row.run.id for row in results.rows if row.cell == cell] for cell in cells[plan.metrics[0]]}
    settings = {row.cell: {"variant": row.run.variant, **row.run.values} for row in results.rows}
    return {
        "format": FORMAT,
        "study": plan.name,
        "question": plan.question,
        "protocol": dict(results.protocol),
        "runs_done": len(results.rows) + len(results.teachers),
        "runs_missing": [run.id for run in results.missing],
        "cells": [
            {"cell": cell, **settings[cell], "runs": runs[cell],
             "metrics": {metric: asdict(cells[metric][cell]) for metric in plan.metrics}}
            for cell in runs
        ],
        "comparisons": [
            {"metric": pair.metric, "cell": pair.cell, "against": pair.against, **asdict(pair.result),
             "verdict": pair.result.verdict}
            for pair in compared
        ],
        "teachers": [{"name": row.run.variant, "run": row.run.id, "metrics": dict(row.metrics)}
                     for row in results.teachers],
    }  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    """Write a figure, the same bytes for the same numbers."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "kdlab"}), atomic_write(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
