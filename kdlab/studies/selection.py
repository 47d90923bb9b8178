"""The best trial of each search, selected by what the search maximizes and by nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from kdlab.studies.plan import SearchedVariant, cell_label
from kdlab.studies.results import Results


@dataclass(frozen=True)
class Selection:
    """What a search has come to.

    Attributes:
        search: of the plan.
        finished: trials of which all seeds are done, each time that one was suggested.
        best: label of the cell with the highest mean of them, the first of equals; None if none has finished.
    """

    search: SearchedVariant
    finished: int
    best: str | None


def select(results: Results) -> tuple[Selection, ...]:
    """Find the best trial of every search of the study."""
    return tuple(_selection(results, search) for search in results.plan.searches)


def best_cells(selections: Sequence[Selection]) -> dict[str, str]:
    """Name of each searched variant -> label of the cell that stands for it in comparisons."""
    return {one.search.variant: one.best or one.search.unnamed_best for one in selections}


def _selection(results: Results, search: SearchedVariant) -> Selection:
    seeds = Counter(cell_label(run.variant, run.values) for run in results.plan.students)
    found = results.by_cell(search.maximize)
    labels = [cell_label(search.variant, values) for values in search.suggested]
    scores = {label: fmean(found[label].values()) for label in labels if len(found.get(label, {})) == seeds[label]}
    finished = sum(label in scores for label in labels)
    return Selection(search, finished, max(scores, key=lambda label: scores[label]) if scores else None)
