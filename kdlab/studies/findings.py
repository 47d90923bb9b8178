"""What the runs of a study say together: summaries of the cells, tested comparisons, and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdlab.studies.ledger import Entry
from kdlab.studies.plan import PlannedRun, compared_cells
from kdlab.studies.reproduction import Reproduction, reproduce
from kdlab.studies.results import Results
from kdlab.studies.selection import Selection, best_cells, select
from kdlab.studies.statistics import FEW, PairedDifference, Summary, holm

FORMAT = 1


@dataclass(frozen=True)
class Compared:
    """One tested pair of cells.

    Attributes:
        metric: key of result.json.
        cell: label of the first cell.
        against: label of the second cell.
        result: the first minus the second.
    """

    metric: str
    cell: str
    against: str
    result: PairedDifference


@dataclass(frozen=True)
class Failed:
    """A run that failed, and why."""

    run: PlannedRun
    reason: str


@dataclass(frozen=True)
class Findings:
    """The results of a study and what follows from them.

    Attributes:
        results: of the study.
        cells: metric -> label of the cell -> its summary.
        compared: the tested pairs.
        selections: what each search has come to.
        reproduced: ours beside published numbers.
        failed: runs that failed; all others that are missing may still be done.
    """

    results: Results
    cells: Mapping[str, Mapping[str, Summary]]
    compared: tuple[Compared, ...]
    selections: tuple[Selection, ...] = ()
    reproduced: tuple[Reproduction, ...] = ()
    failed: tuple[Failed, ...] = ()

    @classmethod
    def of(cls, results: Results) -> Findings:
        """Summarise every cell and test every comparison."""
        cells = {
            metric: {cell: Summary.of(list(values.values())) for cell, values in results.by_cell(metric).items()}
            for metric in results.plan.metrics
        }
        selections = select(results)
        compared = tuple(compare(results, selections))
        return cls(results, cells, compared, selections, reproduce(results), failed_runs(results))

    @property
    def pending(self) -> tuple[PlannedRun, ...]:
        """The runs that are neither done nor failed."""
        failed = {one.run.id for one in self.failed}
        return tuple(run for run in self.results.missing if run.id not in failed)

    @property
    def too_few(self) -> list[str]:
        """Where intervals and tests rest on too few seeds."""
        found = []
        fewest = min(len(rows) for rows in self.results.cells.values())
        if fewest < FEW:
            found.append(f"a cell has n = {fewest}. Below {FEW} seeds an interval says next to nothing.")
        pairs = {(one.cell, one.against): len(one.result.seeds) for one in self.compared}
        poor = {pair: n for pair, n in pairs.items() if n < FEW}
        if poor:
            (cell, against), n = min(poor.items(), key=lambda item: item[1])
            found.append(
                f"{len(poor)} of {len(pairs)} compared pairs have fewer than {FEW} seeds in common, for example "
                f"{cell} against {against} (n = {n})."
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before he believes a number."""
        warnings = []
        everything = len(self.results.plan.runs)
        if self.pending:
            warnings.append(f"Not finished: {len(self.pending)} of {everything} runs are missing.")
        if self.failed:
            warnings.append(
                f"Failed: {len(self.failed)} of {everything} runs, named below with their reasons. The numbers are of "
                "those that did not fail, which may be the better ones."
            )
        for search in self.results.plan.searches:
            if len(search.suggested) < search.trials:
                told = f"{len(search.suggested)} of {search.trials} trials are planned so far"
                warnings.append(f"The search of {search.variant} is not finished: {told}.")
        warnings += [f"Warning: {told}" for told in self.too_few]
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
            "runs_missing": [run.id for run in self.pending],
            "runs_failed": [{"run": one.run.id, "label": one.run.label, "reason": one.reason} for one in self.failed],
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
                "metrics": {metric: asdict(found[cell]) for metric, found in self.cells.items() if cell in found},
            }


def failed_runs(results: Results) -> tuple[Failed, ...]:
    """The missing runs that failed, and why."""
    entries = [(run, Entry(results.folder, run.id)) for run in results.missing]
    return tuple(Failed(run, entry.reason) for run, entry in entries if entry.failure.exists())


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
        "within_band": one.within_band,
        "note": one.note,
    }


def compare(results: Results, selections: Sequence[Selection] = ()) -> list[Compared]:
    """Test all comparisons of the study on all its metrics, corrected over all pairs of a metric.

    Cells whose runs are equal in all metrics are one: at alpha = 1, for instance, no temperature matters, and the same
    test is not counted several times. What a search maximizes is left out: by it the best trial was selected, so that
    it is high is no finding.
    """
    compared: list[Compared] = []
    best = best_cells(selections)
    one_of = _first_of_equals(results)
    for metric in results.plan.metrics:
        if any(metric == one.search.maximize for one in selections):
            continue
        values = results.by_cell(metric)
        pairs = [
            pair for comparison in results.plan.comparisons for pair in compared_cells(results.plan, comparison, best)
        ]
        # a student without a teacher has no agreement with one, which no seed would change
        pairs = [pair for pair in pairs if all(cell in values or cell not in results.cells for cell in pair)]
        same = [(one_of.get(cell, cell), one_of.get(other, other)) for cell, other in pairs]
        tests = {pair: PairedDifference.of(*(values.get(cell, {}) for cell in pair)) for pair in same}
        tested = {pair: test.p for pair, test in tests.items() if test.p is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for (cell, against), pair in zip(pairs, same, strict=True):
            compared.append(Compared(metric, cell, against, replace(tests[pair], p_holm=corrected.get(pair))))
    return compared


def _first_of_equals(results: Results) -> dict[str, str]:
    """Label of each cell -> the first cell with the very same numbers, which is mostly the cell itself."""
    first: dict[tuple[tuple[int, tuple[tuple[str, float], ...]], ...], str] = {}
    return {
        cell: first.setdefault(tuple(sorted((row.run.seed, tuple(row.metrics.items())) for row in rows)), cell)
        for cell, rows in results.cells.items()
    }
