"""The executor of one machine: each run in a process of its own, several at a time.

A process is forked from one that has imported PyTorch already, which saves the 10 seconds that this takes. That one
runs nothing itself: neither threads of PyTorch nor a GPU's context survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from kdlab.studies.executor import Executor, Exit, fit_arguments
from kdlab.studies.plan import PlannedRun
from kdlab.studies.process import work


class LocalExecutor(Executor):
    """Work through a plan with processes of this machine.

    Args:
        study: folder of the study.
        jobs: runs at a time.
        options: of ``fit``, for every run.
        retry_failed: run again what has failed before.
    """

    def __init__(self, study: Path, jobs: int, options: Sequence[str] = (), retry_failed: bool = False) -> None:
        super().__init__(study, options, retry_failed)
        self.jobs = jobs
        self._processes: dict[BaseProcess, tuple[PlannedRun, float]] = {}

    @property
    def active(self) -> Sequence[PlannedRun]:
        """The runs of all processes."""
        return [run for run, _ in self._processes.values()]

    def has_room(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> bool:
        """Whether a slot is free. Teachers have the cores for themselves: most others wait for them."""
        teaching = bool(teachers) or any(other.role == "teacher" for other in self.active)
        return len(self._processes) < self.jobs and not (teaching and run.role == "student")

    def launch(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> None:
        """Fork a process, with its share of the cores."""
        arguments = ["fit", *fit_arguments(run, self.study), *self.options]
        teaching = {other.id for other in (*teachers, *self.active) if other.role == "teacher"}
        threads = max(1, cores() // min(self.jobs, len(teaching) or self.jobs))
        process = multiprocessing.get_context("fork").Process(
            target=work, args=(self.study, run.id, arguments, threads, os.getpid())
        )
        process.start()
        self._processes[process] = run, time.monotonic()

    def collect(self, seconds: float) -> Iterator[Exit]:
        """Wait for a process to end."""
        wait([process.sentinel for process in self._processes], seconds)
        for process in [process for process in self._processes if process.exitcode is not None]:
            run, started = self._processes.pop(process)
            code = process.exitcode or 0
            process.close()
            yield Exit(run, code, time.monotonic() - started)

    def stop(self, at_once: bool) -> None:
        """Tell the processes by SIGTERM, of which a second one ends a run at once."""
        for process in self._processes:
            process.terminate()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
