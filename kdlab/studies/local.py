"""The executor of one machine: each run in a process of its own, several at a time.

A process is forked from one that has imported PyTorch already, which saves the 10 seconds that this takes. That one
runs nothing itself: neither threads of PyTorch nor a GPU's context survive a fork.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Literal

from kdlab.errors import BusyError
from kdlab.studies.ledger import Entry
from kdlab.studies.plan import PlannedRun

End = Literal["done", "failed", "blocked", "stopped"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED_BY_US = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # a run that was told to stop has not failed
LOOK_EVERY_S = 0.5  # at runs that other processes work on
PR_SET_PDEATHSIG = 1  # of Linux' prctl


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


class LocalExecutor:
    """Work through a plan with processes of this machine.

    Several executors may work on the same plan, here or on other machines with the same disk: a run is claimed by one,
    and the others wait for it.

    Args:
        study: folder of the study.
        jobs: runs at a time.
        options: of ``fit``, for every run.
        retry_failed: run again what has failed before.
    """

    def __init__(self, study: Path, jobs: int, options: Sequence[str] = (), retry_failed: bool = False) -> None:
        self.study = study
        self.jobs = jobs
        self.options = list(options)
        self.retry_failed = retry_failed
        self.stopped_by = 0  # number of the signal that told us to stop
        self._active: dict[BaseProcess, tuple[PlannedRun, float]] = {}
        self._ends: dict[str, Ended] = {}

    def run(self, runs: Sequence[PlannedRun], report: Callable[[Ended], None], tick: Callable[[], None]) -> None:
        """Run all, those that others need first, and tell of each when it ends.

        On SIGINT, SIGTERM or SIGHUP all processes are told to write their resume points; on a second one they end at
        once.

        Args:
            runs: with all that they need.
            report: called once for each run.
            tick: called at least twice a second.
        """
        # cells of several variants may be the same run
        waiting = list({run.id: run for run in sorted(runs, key=lambda run: run.role == "student")}.values())
        with self._listening():
            while (waiting and not self.stopped_by) or self._active:
                if not self.stopped_by:
                    waiting = self._start(waiting, report)
                if self._active or waiting:
                    wait([process.sentinel for process in self._active], LOOK_EVERY_S)
                self._collect(waiting, report)
                tick()

    def _start(self, waiting: list[PlannedRun], report: Callable[[Ended], None]) -> list[PlannedRun]:
        """Start what can start, and return what still waits: for a free slot, another run, or another process."""
        postponed = []
        # teachers first and by themselves: most others wait for them, and so they have all cores
        teachers = [run for run in waiting if run.role == "teacher" and all(need in self._ends for need in run.needs)]
        teaching = bool(teachers) or any(run.role == "teacher" for run, _ in self._active.values())
        for run in waiting:
            if len(self._active) >= self.jobs or (teaching and run.role == "student"):
                postponed.append(run)
                continue
            entry = Entry(self.study, run.id)
            broken = [need for need in run.needs if need in self._ends and self._ends[need].end != "done"]
            state = entry.state
            if state == "done":
                self._end(Ended(run, "done"), report)
            elif broken:
                label = self._ends[broken[0]].run.label
                self._end(Ended(run, "blocked", reason=f"it needs {label}, which failed"), report)
            elif state == "failed" and not self.retry_failed:
                self._end(Ended(run, "failed", reason=entry.reason + " (--retry-failed runs it again)"), report)
            elif state == "running" or any(need not in self._ends for need in run.needs):
                postponed.append(run)
            else:
                self._fork(run, max(1, cores() // min(self.jobs, len(teachers) or self.jobs)))
        return postponed

    def _fork(self, run: PlannedRun, threads: int) -> None:
        arguments = ["fit", *fit_arguments(run, self.study), *self.options]
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(self.study, run.id, arguments, threads, os.getpid())
        )
        process.start()
        self._active[process] = run, time.monotonic()

    def _collect(self, waiting: list[PlannedRun], report: Callable[[Ended], None]) -> None:
        for process in [process for process in self._active if process.exitcode is not None]:
            run, started = self._active.pop(process)
            entry, code = Entry(self.study, run.id), process.exitcode or 0
            process.close()
            seconds = time.monotonic() - started
            if entry.folder.result.exists():
                self._end(Ended(run, "done", seconds), report)
            elif code == BusyError.exit_code:  # somebody else was quicker
                waiting.append(run)
            elif code in ENDED_BY_US:
                self._end(Ended(run, "stopped", seconds), report)
            else:
                if not entry.failure.exists():  # killed, perhaps for its memory; it could not say so itself
                    entry.fail(128 - code if code < 0 else code)
                self._end(Ended(run, "failed", seconds, entry.reason), report)

    def _end(self, ended: Ended, report: Callable[[Ended], None]) -> None:
        self._ends[ended.run.id] = ended
        report(ended)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped_by = number
            for process in self._active:
                process.terminate()

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fit_arguments(run: PlannedRun, study: Path) -> list[str]:
    """The arguments of a run with the weights of the runs that it needs."""
    filled = []
    for argument in run.arguments:
        for need in run.needs:
            argument = argument.replace(f"@{need}", str(Entry(study, need).folder.student))
        filled.append(argument)
    return filled


def _work(study: Path, run_id: str, arguments: list[str], threads: int, parent: int) -> None:
    """The life of a forked process: claim the run, fit, and leave with the exit code of ``fit``."""
    os.setsid()  # Ctrl-C is for the parent, which tells us once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _stop_without(parent)
    entry = Entry(study, run_id)
    with entry.claim() as ours:
        if not ours or entry.folder.result.exists():
            sys.exit(BusyError.exit_code)
        entry.failure.unlink(missing_ok=True)
        entry.folder.path.mkdir(parents=True, exist_ok=True)
        _write_to(entry.output)
        code = _fit([*arguments, *entry.place], threads)
        if code not in (0, BusyError.exit_code, *ENDED_BY_US):
            entry.fail(code)
        sys.exit(code)


def _fit(arguments: list[str], threads: int) -> int:
    import torch

    from kdlab.cli import main

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    sys.argv = ["kdlab", *arguments]  # result.json remembers the command
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _write_to(path: Path) -> None:
    """Send all that this process prints from now on to a file, what libraries print below Python too."""
    with path.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 (to the end of the process)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115


def _stop_without(parent: int) -> None:
    """Stop with a resume point when the parent is killed, so that no run is left that nobody knows of (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGTERM)
