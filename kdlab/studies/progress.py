"""What a person, or a log file, sees while a study goes on."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from statistics import fmean, median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kdlab.run.summary import read_result
from kdlab.studies.executor import Ended
from kdlab.studies.formats import single
from kdlab.studies.ledger import Entry
from kdlab.studies.plan import Plan
from kdlab.studies.results import lookup


class StudyProgress:
    """One line for each run that ends, a bar in a terminal, and after the first run an estimate of the rest.

    Args:
        plan: of the study.
        study: its folder.
        total: runs of this call.
        jobs: runs at a time.
    """

    def __init__(self, plan: Plan, study: Path, total: int, jobs: int) -> None:
        self._plan = plan
        self._study = study
        self._total = total
        self._jobs = jobs
        self._seconds: list[float] = []  # of the students of this call
        self._found = 0  # runs that were done before, or by others
        self.ends: list[Ended] = []
        console = Console(stderr=True)
        # no thread of its own: the executor forks
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, auto_refresh=False, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(plan.name, total=total)

    def __enter__(self) -> StudyProgress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away and say how many runs were done already."""
        self._bar.stop()
        if self._found:
            print(f"{self._found} of {self._total} runs were done already", file=sys.stderr)

    def expect(self, total: int) -> None:
        """Take note of how many runs there are now: a round of a search has been planned."""
        self._total = total
        self._bar.update(self._task, total=total)

    def tick(self) -> None:
        """Redraw the bar."""
        self._bar.refresh()

    def report(self, ended: Ended) -> None:
        """Write the line of a run that has ended."""
        self.ends.append(ended)
        self._bar.update(self._task, advance=1)
        if ended.end == "done" and ended.seconds is None:
            self._found += 1
            return
        if ended.end == "done" and ended.seconds is not None:
            text = f"{self._metric(ended)} ({ended.seconds:.0f} s{self._left(ended, ended.seconds)})"
        else:
            text = f"{ended.end}: {ended.reason}".removesuffix(": ")
        self._bar.console.print(
            f"[{len(self.ends)}/{self._total}] {ended.run.label}: {text}", markup=False, highlight=False, soft_wrap=True
        )

    def _left(self, ended: Ended, seconds: float) -> str:
        """The time that is left, by the mean of the students so far: a teacher's says nothing of theirs."""
        if ended.run.role == "student":
            self._seconds.append(seconds)
        rest = self._total - len(self.ends)
        return f", about {estimate(fmean(self._seconds), rest, self._jobs)} left" if self._seconds and rest else ""

    def _metric(self, ended: Ended) -> str:
        metric = self._plan.metrics[0]
        value = lookup(json.loads(Entry(self._study, ended.run.id).folder.result.read_text(encoding="utf-8")), metric)
        is_number = isinstance(value, (int, float))
        return f"{metric} {single(value)}" if is_number else f"done, but its result has no {metric}"


def estimate(seconds: float, runs: int, jobs: int) -> timedelta:
    """Time that so many runs take, each of so many seconds, so many at a time."""
    return timedelta(seconds=round(seconds * -(-runs // jobs)))


def measured_seconds(plan: Plan, study: Path) -> float | None:
    """Median time of the finished students of a study, with their test and profile; None if there are none."""
    times = []
    for run in plan.students:
        folder = Entry(study, run.id).folder
        if (result := read_result(folder.result)) and "train_seconds" in result:
            # a copied folder has lost its times; one that was continued has the break in it
            whole = folder.result.stat().st_mtime - folder.config.stat().st_mtime if folder.config.exists() else 0.0
            times.append(max(result["train_seconds"], whole))
    return median(times) if times else None
