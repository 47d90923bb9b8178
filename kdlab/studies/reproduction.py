"""Our accuracies beside published ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdlab.studies.plan import cell_label
from kdlab.studies.published import EPOCHS, Published
from kdlab.studies.results import Results, Row
from kdlab.studies.statistics import FEW, Summary

BAND = 0.005  # half a point, or two standard errors where these are more


@dataclass(frozen=True)
class Reproduction:
    """A published accuracy and what our runs have reached.

    Attributes:
        cell: its label, or the name of the teacher.
        published: what is held against it.
        rows: our finished runs.
        selection: which epoch of our runs counts.
    """

    cell: str
    published: Published
    rows: Sequence[Row]
    selection: str

    @property
    def ours(self) -> Summary | None:
        """Test accuracy of our runs; None without any."""
        return Summary.of([row.accuracy for row in self.rows]) if self.rows else None

    @property
    def difference(self) -> Summary | None:
        """Ours minus the published one, which is taken as exact: its spread is seldom known."""
        return None if self.ours is None else replace(self.ours, mean=self.ours.mean - self.published.accuracy)

    @property
    def verdict(self) -> str:
        """Whether the 95% interval of ours holds the published number."""
        if self.difference is None:
            return "no run"
        if self.difference.half_width is None:
            return "one run: no verdict"
        if abs(self.difference.mean) <= self.difference.half_width:
            return "agrees"
        return "higher" if self.difference.mean > 0 else "lower"

    @property
    def within_band(self) -> bool | None:
        """Whether the mean lies within max(0.5 points, 2 sd / sqrt(n)) of the published number.

        The rougher question, for a table of many cells: users who run the authors' code differ by as much. None for
        fewer than 3 runs.
        """
        found = self.difference
        if found is None or found.sd is None or found.n < FEW:
            return None
        return abs(found.mean) <= max(BAND, 2 * found.sd / math.sqrt(found.n))

    @property
    def note(self) -> str:
        """In which way the two are not the same quantity; empty if both are of one kind of epoch."""
        theirs = EPOCHS[self.published.epoch]
        return "" if theirs == self.selection else f"theirs: {theirs}; ours: {self.selection}"


def reproduce(results: Results) -> tuple[Reproduction, ...]:
    """Hold the cells and teachers of a study against the published numbers in its file."""
    groups, found = results.cells_and_teachers, []
    for published in results.plan.published:
        label = cell_label(published.variant, published.values)
        label += " (teacher)" if published.role == "teacher" else ""
        rows = groups.get(label, [])
        selection = str(rows[0].result["protocol"]["selection"] if rows else results.protocol["selection"])
        found.append(Reproduction(label, published, rows, selection))
    return tuple(found)
