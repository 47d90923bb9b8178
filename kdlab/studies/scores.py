"""What the trials of a search have reached, read from the run folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

from kdlab.errors import UsageError
from kdlab.studies.ledger import Entry
from kdlab.studies.plan import PlannedRun
from kdlab.studies.results import read_row


class LedgerScore:
    """The `kdlab.studies.planner.Score` of a study on disk.

    Args:
        study: folder of the study.
        retry_failed: what has failed before runs again, so its trial is open until it has.
    """

    def __init__(self, study: Path, retry_failed: bool = False) -> None:
        self._study = study
        self._retry_failed = retry_failed
        self.tried: Collection[str] = ()  # ids of the runs that have ended in this call

    def __call__(self, runs: Sequence[PlannedRun], key: str) -> float | Literal["open", "failed"]:
        """Mean of a key of result.json over the runs of a trial, when all of them have ended.

        Raises:
            UsageError: if a result has no such number.
        """
        states = {self._state(run.id) for run in runs}
        if "open" in states:
            return "open"
        return "failed" if "failed" in states else fmean(self._value(run, key) for run in runs)

    def _state(self, run_id: str) -> Literal["open", "failed", "done"]:
        entry = Entry(self._study, run_id)
        if entry.folder.result.exists():
            return "done"
        if not entry.failure.exists() or (self._retry_failed and run_id not in self.tried):
            return "open"
        state = entry.state  # others may be at it again
        return state if state in ("done", "failed") else "open"

    def _value(self, run: PlannedRun, key: str) -> float:
        folder = Entry(self._study, run.id).folder.path
        value = read_row(run, folder, ()).number(key)
        if value is None:
            raise UsageError(
                f"the search of {run.variant} maximizes {key}, but that is no number in {folder / 'result.json'}; name "
                "another key of it, such as student.val.accuracy"
            )
        return value
