"""The executor of one machine: each run in a process of its own, several at a time.

A process is forked from one that has imported PyTorch already, which saves the 10 seconds that this takes. That one
runs nothing itself: neither threads of PyTorch nor a GPU's context survive a fork.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from kdlab.studies.executor import Check, Executor, Exit, as_it_was, fit_arguments
from kdlab.studies.plan import PlannedRun
from kdlab.studies.process import work


class Work(NamedTuple):
    """What a process does.

    Attributes:
        run: of the plan.
        gpu: the only one that it sees; None for all.
        started: by the clock of `time.monotonic`.
    """

    run: PlannedRun
    gpu: int | None
    started: float


class LocalExecutor(Executor):
    """Work through a plan with processes of this machine.

    Args:
        study: folder of the study.
        jobs: runs at a time.
        options: of ``fit``, for every run.
        retry_failed: run again what has failed before.
        is_as_planned: as in `Executor`.
        gpus: of the machine, one for each run; None shows all to all, and 0 and 1 are the same as None.
    """

    def __init__(
        self, study: Path, jobs: int, options: Sequence[str] = (), retry_failed: bool = False,
        is_as_planned: Check = as_it_was, gpus: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(study, options, retry_failed, is_as_planned)
        self.jobs = jobs
        self._gpus = range(gpus or 0)
        self._devices = max(1, len(self._gpus))
        self._processes: dict[BaseProcess, Work] = {}

    @property
    def active(self) -> Sequence[PlannedRun]:
        """The runs of all processes."""
        return [work.run for work in self._processes.values()]

    def has_room(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> bool:
        """Whether a slot is free. Teachers have the cores for themselves: most others wait for them."""
        teaching = bool(teachers) or any(other.role == "teacher" for other in self.active)
        return len(self._processes) < self.jobs and not (teaching and run.role == "student")

    def launch(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> None:
        """Fork a process, with its share of the cores."""
        arguments = ["fit", *fit_arguments(run, self.study), *self.options]
        teaching = {other.id for other in (*teachers, *self.active) if other.role == "teacher"}
        threads = max(1, cores() // min(self.jobs, len(teaching) or self.jobs))
        taken = [other.gpu for other in self._processes.values()]
        gpu = min(self._gpus, key=taken.count) if len(self._gpus) > 1 else None
        process = multiprocessing.get_context("fork").Process(
            target=work,
            args=(self.study, run.id, arguments, threads, os.getpid(), gpu, math.ceil(self.jobs / self._devices)),
        )
        process.start()
        self._processes[process] = Work(run, gpu, time.monotonic())

    def collect(self, seconds: float) -> Iterator[Exit]:
        """Wait for a process to end."""
        wait([process.sentinel for process in self._processes], seconds)
        for process in [process for process in self._processes if process.exitcode is not None]:
            ended = self._processes.pop(process)
            code = process.exitcode or 0
            process.close()
            yield Exit(ended.run, code, time.monotonic() - ended.started)

    def stop(self, at_once: bool) -> None:
        """Tell the processes by SIGTERM, of which a second one ends a run at once."""
        for process in self._processes:
            process.terminate()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
