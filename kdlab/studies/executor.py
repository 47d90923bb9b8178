"""Working through a plan: what can start, what waits for what, and what became of each run.

Where runs are started, and how many at a time, is for the executor of one machine (`local`) and that of a cluster
(`cluster`) to say.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from kdlab.errors import BusyError
from kdlab.run.signals import handling
from kdlab.studies.ledger import Entry
from kdlab.studies.plan import PlannedRun

End = Literal["done", "failed", "blocked", "stopped"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# a run that was told to stop has not failed; by SIGUSR1 SLURM tells it (`kdlab.run.requeue`)
ENDED_BY_US = tuple(code for end in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) for code in (128 + end, -end))
CHANGED = "its config files have changed since the study was planned; give the same command again"
LOOK_EVERY_S = 0.5  # at runs that other processes work on


@dataclass(frozen=True)
class Ended:
    """What became of a run.

    Attributes:
        run: of the plan.
        end: blocked: a run that it needs failed. stopped: told to stop, with its resume point written.
        seconds: of work in this call; None where there was none: done or failed before, or elsewhere.
        reason: why it failed, or what blocks it.
    """

    run: PlannedRun
    end: End
    seconds: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Exit:
    """A run's process that has ended.

    Attributes:
        run: of the plan.
        code: exit code of ``fit``; negative for the signal that killed the process.
        seconds: that it took.
    """

    run: PlannedRun
    code: int
    seconds: float


Check = Callable[[PlannedRun], bool]


def as_it_was(run: PlannedRun) -> bool:
    """Whether a run still is what was planned: where nobody looks, it is."""
    return True


class Executor(ABC):
    """Work through a plan.

    Several executors may work on the same plan, here or on other machines with the same disk: a run is claimed by one,
    and the others wait for it.

    Args:
        study: folder of the study.
        options: of ``fit``, for every run.
        retry_failed: run again what has failed before.
        is_as_planned: whether a run still computes what its id says, asked before it starts.
    """

    def __init__(
        self,
        study: Path,
        options: Sequence[str] = (),
        retry_failed: bool = False,
        is_as_planned: Check = as_it_was,
    ) -> None:
        self.study = study
        self.is_as_planned = is_as_planned
        self.options = list(options)
        self.retry_failed = retry_failed
        self.stopped_by = 0  # number of the signal that told us to stop
        self.ends: dict[str, Ended] = {}
        self._signals = 0  # received
        self._answered = 0  # of them

    def run(self, runs: Sequence[PlannedRun], report: Callable[[Ended], None], tick: Callable[[], None]) -> None:
        """Run all, those that others need first, and tell of each when it ends.

        On SIGINT, SIGTERM or SIGHUP all runs are told to write their resume points; on a second one they end at once.
        May be called again with more runs: those that have ended stay so.

        Args:
            runs: with all that they need.
            report: called once for each run.
            tick: called at least twice a second.
        """
        # cells of several variants may be the same run
        unique = {run.id: run for run in sorted(runs, key=lambda run: run.role == "student")}
        waiting = [run for run in unique.values() if run.id not in self.ends]
        with handling(SIGNALS, self._note):
            while (waiting and not self.stopped_by) or self.active:
                if not self.stopped_by:
                    waiting = self._start(waiting, report)
                if self.active or waiting:
                    for ended in self.collect(LOOK_EVERY_S):
                        self._conclude(ended, waiting, report)
                if self._answered < self._signals:
                    self._answered = self._signals
                    self.stop(at_once=self._signals > 1)
                tick()

    @property
    @abstractmethod
    def active(self) -> Sequence[PlannedRun]:
        """What was launched and has not ended."""

    @abstractmethod
    def has_room(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> bool:
        """Whether a run may be launched now, beside `active` and the teachers that are ready to start."""

    @abstractmethod
    def launch(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> None:
        """Start the process of a run, which claims it."""

    @abstractmethod
    def collect(self, seconds: float) -> Iterator[Exit]:
        """Wait, at most so long, for something to end, and take it from `active`."""

    @abstractmethod
    def stop(self, at_once: bool) -> None:
        """Tell all that is active to end: with a resume point, or at once."""

    def _start(self, waiting: list[PlannedRun], report: Callable[[Ended], None]) -> list[PlannedRun]:
        """Start what can start, and return what still waits: for room, another run, or another process."""
        postponed = []
        teachers = [run for run in waiting if run.role == "teacher" and all(need in self.ends for need in run.needs)]
        for run in waiting:
            if not self.has_room(run, teachers):
                postponed.append(run)
                continue
            entry = Entry(self.study, run.id)
            broken = [need for need in run.needs if need in self.ends and self.ends[need].end != "done"]
            if entry.folder.result.exists():
                self._end(Ended(run, "done"), report)
            elif broken:
                label = self.ends[broken[0]].run.label
                self._end(Ended(run, "blocked", reason=f"it needs {label}, which is not done"), report)
            elif any(need not in self.ends for need in run.needs):
                postponed.append(run)
            elif (state := entry.state) == "failed" and not self.retry_failed:
                self._end(Ended(run, "failed", reason=entry.reason + " (--retry-failed runs it again)"), report)
            elif state == "running":
                postponed.append(run)
            elif not self.is_as_planned(run):
                self._end(Ended(run, "failed", reason=CHANGED), report)
            else:
                self.launch(run, teachers)
        return postponed

    def _conclude(self, ended: Exit, waiting: list[PlannedRun], report: Callable[[Ended], None]) -> None:
        entry = Entry(self.study, ended.run.id)
        if entry.folder.result.exists():
            self._end(Ended(ended.run, "done", ended.seconds), report)
        elif ended.code == BusyError.exit_code:  # somebody else was quicker
            waiting.append(ended.run)
        elif ended.code in ENDED_BY_US:
            reason = "" if self.stopped_by else "another process told it to stop; the same command continues it"
            self._end(Ended(ended.run, "stopped", ended.seconds, reason), report)
        else:
            self._end(Ended(ended.run, "failed", ended.seconds, _why(entry, ended.code)), report)

    def _end(self, ended: Ended, report: Callable[[Ended], None]) -> None:
        self.ends[ended.run.id] = ended
        report(ended)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        self._signals += 1


def _why(entry: Entry, code: int) -> str:
    """Why a run failed, which is remembered if there is still room on the disk."""
    code = 128 - code if code < 0 else code
    try:
        if not entry.failure.exists():  # killed, perhaps for its memory; it could not say so itself
            entry.fail(code)
        return entry.reason
    except OSError as error:
        return f"exit code {code}; {error}"


def fit_arguments(run: PlannedRun, study: Path) -> list[str]:
    """The arguments of a run with the weights of the runs that it needs."""
    filled = []
    for argument in run.arguments:
        for need in run.needs:
            argument = argument.replace(f"@{need}", str(Entry(study, need).folder.student))
        filled.append(argument)
    return filled
