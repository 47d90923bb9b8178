"""What the runs of a study say together: summaries of the cells, tested comparisons, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdlab.studies.plan import compared_cells
from kdlab.studies.reproduction import Reproduction, reproduce
from kdlab.studies.results import Results
from kdlab.studies.selection import Selection, best_cells, select
from kdlab.studies.statistics import FEW, PairedDifference, Summary, holm

FORMAT = 1


@dataclass(frozen=True)
class Compared:
    """One tested pair of cells."""

    metric: str
    cell: str
    against: str
    result: PairedDifference


@dataclass(frozen=True)
class Findings:
    """The results of a study and what follows from them.

    Attributes:
        results: of the study.
        cells: metric -> label of the cell -> its summary.
        compared: the tested pairs.
        selections: what each search has come to.
        reproduced: ours beside published numbers.
    """

    results: Results
    cells: Mapping[str, Mapping[str, Summary]]
    compared: tuple[Compared, ...]
    selections: tuple[Selection, ...] = ()
    reproduced: tuple[Reproduction, ...] = ()

    @classmethod
    def of(cls, results: Results) -> Findings:
        """Summarise every cell and test every comparison."""
        cells = {
            metric: {cell: Summary.of(list(values.values())) for cell, values in results.by_cell(metric).items()}
            for metric in results.plan.metrics
        }
        selections = select(results)
        compared = tuple(compare(results, selections))
        return cls(results, cells, compared, selections, reproduce(results))

    @property
    def fewest(self) -> int:
        """Runs of the smallest cell."""
        return min(len(rows) for rows in self.results.cells.values())

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before he believes a number."""
        warnings = []
        if self.results.missing:
            everything = len(self.results.plan.runs)
            warnings.append(f"Not finished: {len(self.results.missing)} of {everything} runs are missing.")
        for search in self.results.plan.searches:
            if len(search.suggested) < search.trials:
                told = f"{len(search.suggested)} of {search.trials} trials are planned so far"
                warnings.append(f"The search of {search.variant} is not finished: {told}.")
        if self.fewest < FEW:
            warnings.append(
                f"Warning: a cell has n = {self.fewest}. Below {FEW} seeds an interval says next to nothing."
            )
        return [*warnings, *self.results.notes]

    def as_dict(self) -> dict[str, Any]:
        """What ``summary.json`` holds: nothing that differs between machines of equal arithmetic."""
        results, plan = self.results, self.results.plan
        return {
            "format": FORMAT,
            "study": plan.name,
            "question": plan.question,
            "protocol": dict(results.protocol),
            "runs_done": len(results.rows) + len(results.teachers),
            "runs_missing": [run.id for run in results.missing],
            "cells": list(self._cells()),
            "comparisons": [
                {"metric": pair.metric, "cell": pair.cell, "against": pair.against, **asdict(pair.result),
                 "verdict": pair.result.verdict}
                for pair in self.compared
            ],
            "searches": [
                {"variant": one.search.variant, "maximize": one.search.maximize, "trials": one.search.trials,
                 "finished": one.finished, "best": one.best}
                for one in self.selections
            ],
            **({"published": [_reproduced(one) for one in self.reproduced]} if self.reproduced else {}),
            "teachers": [{"name": row.run.variant, "run": row.run.id, "metrics": dict(row.metrics)}
                         for row in results.teachers],
        }  # fmt: skip

    def _cells(self) -> Iterator[dict[str, Any]]:
        for cell, rows in self.results.cells.items():
            yield {
                "cell": cell,
                "variant": rows[0].run.variant,
                **rows[0].run.values,
                "runs": [row.run.id for row in rows],
                "metrics": {metric: asdict(self.cells[metric][cell]) for metric in self.results.plan.metrics},
            }


def _reproduced(one: Reproduction) -> dict[str, Any]:
    published = one.published
    return {
        "cell": one.cell,
        "published": published.accuracy,
        "source": published.source,
        "protocol": published.protocol,
        "ours": None if one.ours is None else asdict(one.ours),
        "difference": None if one.difference is None else asdict(one.difference),
        "verdict": one.verdict,
        "note": one.note,
    }


def compare(results: Results, selections: Sequence[Selection] = ()) -> list[Compared]:
    """Test all comparisons of the study on all its metrics, corrected over all pairs of a metric.

    What a search maximizes is left out: by it the best trial was selected, so that it is high is no finding.
    """
    compared: list[Compared] = []
    best = best_cells(selections)
    for metric in results.plan.metrics:
        if any(metric == one.search.maximize for one in selections):
            continue
        values = results.by_cell(metric)
        pairs = [
            pair for comparison in results.plan.comparisons for pair in compared_cells(results.plan, comparison, best)
        ]
        tests = [PairedDifference.of(values.get(cell, {}), values.get(other, {})) for cell, other in pairs]
        corrected = iter(holm([test.p for test in tests if test.p is not None]))
        for (cell, against), test in zip(pairs, tests, strict=True):
            p_holm = None if test.p is None else next(corrected)
            result = PairedDifference(test.seeds, test.difference, test.effect_size, test.p, p_holm)
            compared.append(Compared(metric, cell, against, result))
    return compared
