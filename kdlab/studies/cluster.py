"""The executor of a Ray cluster: each run is a task of Ray, which starts the very process that `local` would start.

Ray says on which node, and gives the task to another one when its worker or node dies. Whether a run is done, failed or
worked on is for the ledger to say, on a disk that all nodes share.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdlab.errors import UsageError
from kdlab.studies.executor import Check, Executor, Exit, as_it_was, fit_arguments
from kdlab.studies.local import cores
from kdlab.studies.plan import PlannedRun
from kdlab.studies.process import command

RETRIES = 3  # of a run whose worker or node died
OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray takes: a task's arguments and result are a few words
CONNECT_S = 5.0
LOOK_EVERY_S = 0.2  # of a worker at its process
STOPPED = 143  # 128 + SIGTERM
KILLED = 137  # 128 + SIGKILL: a run that took its worker with it, each time


class RayExecutor(Executor):
    """Work through a plan with tasks of the cluster that this process is connected to.

    Args:
        study: folder of the study, which all nodes see by this path.
        cpus: that Ray reserves for a run; also its threads.
        gpus: that Ray reserves for a run; 0.25 puts four runs on one. None is one where the cluster has any.
        jobs: runs that Ray is given at a time; None is all that can start.
        options: of ``fit``, for every run.
        retry_failed: run again what has failed before.
        is_as_planned: as in `Executor`.

    Raises:
        UsageError: if no node can hold a run.
    """

    def __init__(
        self, study: Path, cpus: float = 1.0, gpus: float | None = None, jobs: int | None = None,
        options: Sequence[str] = (), retry_failed: bool = False, is_as_planned: Check = as_it_was,
    ) -> None:  # fmt: skip
        super().__init__(study, options, retry_failed, is_as_planned)
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU") for node in nodes) else 0.0
        held = sum(runs_on(node, cpus, gpus) for node in nodes)
        if not held:
            raise UsageError(
                f"no node of the cluster has {cpus:g} CPU(s) and {gpus:g} GPU(s) for a run; "
                "set --cpus_per_run and --gpus_per_run"
            )
        self.jobs = min(jobs or held, held)  # at a time, as things stand
        self._limit = jobs
        self._threads = max(1, int(cpus))
        self._per_device = math.ceil(1 / gpus) if 0 < gpus < 1 else 1  # Ray may put so many on one GPU
        # a run that fails is no error of its task, so what Ray tries again are deaths of workers and nodes
        self._task = ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
        self._tasks: dict[Any, PlannedRun] = {}

    @property
    def active(self) -> Sequence[PlannedRun]:
        """The runs of all tasks, also of those that wait in Ray's queue."""
        return list(self._tasks.values())

    def has_room(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> bool:
        """Whether Ray may be given one more; without a limit always: a cluster that can grow looks at its queue."""
        return self._limit is None or len(self._tasks) < self._limit

    def launch(self, run: PlannedRun, teachers: Sequence[PlannedRun]) -> None:
        """Give Ray a task."""
        arguments = ["fit", *fit_arguments(run, self.study), *self.options]
        words = command(self.study, run.id, arguments, self._threads, self._per_device)
        self._tasks[self._task.remote(str(Path.cwd()), str(self.study), words)] = run

    def collect(self, seconds: float) -> Iterator[Exit]:
        """Wait for a task to end.

        Raises:
            UsageError: if a node does not see the folder of the study.
        """
        import ray

        if not self._tasks:
            time.sleep(seconds)
            return
        ended, _ = ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        for task in ended:
            run = self._tasks.pop(task)
            try:
                code, taken = ray.get(task)
            except ray.exceptions.TaskCancelledError:
                code, taken = STOPPED, 0.0
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
                code, taken = STOPPED if self.stopped_by else KILLED, 0.0
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # a mistake of ours, or of whoever set the cluster up
            yield Exit(run, code, taken)

    def stop(self, at_once: bool) -> None:
        """Tell the workers, which tell their processes; at once: end the workers, which tells the processes again."""
        import ray

        for task in self._tasks:
            ray.cancel(task, force=at_once)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to a cluster.

    Args:
        address: ``HOST:PORT`` of a cluster; ``auto``: the one that this machine belongs to; ``local``: one of this
            machine alone, which is started now and ended after.

    Raises:
        UsageError: if there is no such cluster, or it does not let us in.
    """
    import ray

    _check_address(address)
    # what Ray says goes into its own log files: a run has its output.txt, and the terminal our lines
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    ray._private.worker._worker_logs_enabled = False  # pages of log when a node dies; nothing public turns them off
    own = {"num_cpus": cores(), "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(address=address, **quiet, **(own if address == "local" else {}))
    except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
        reason = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"--ray_address {address}: Ray cannot connect: {reason}; if the cluster has a token, set "
            "RAY_AUTH_MODE=token and give it in ~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address where nobody answers; Ray would try it for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--ray_address is {address}; give HOST:PORT of a cluster, auto, or local")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise UsageError(
            f"--ray_address {address}: nobody answers there ({error}); start a cluster with `ray start --head`, "
            "or give --ray_address local"
        ) from error


def runs_on(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """Runs that a node holds at a time."""
    parts = [math.floor(resources.get(name, 0.0) / share) for name, share in (("CPU", cpus), ("GPU", gpus)) if share]
    return min(parts)


def _run(place: str, study: str, words: list[str]) -> tuple[int, float]:
    """What a worker of Ray does: start the process of a run and wait for it.

    The run is not in this process: one that is killed for its memory then fails as it does on one machine, instead of
    being tried again, and nothing of one run is left for the next.

    Args:
        place: working directory.
        study: folder of the study, seen from there.
        words: that follow ``python``.

    Returns:
        Exit code and seconds.

    Raises:
        UsageError: if this node does not see the folder of the study.
    """
    if not Path(place, study).is_dir():
        raise UsageError(
            f"node {socket.gethostname()} does not see {Path(place, study)}; "
            "all nodes must share the disk with the runs, and call it the same"
        )
    # with it Ray cancels a task; the workers of a cluster that was started in the background ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *words, str(os.getpid())], cwd=place)
    try:
        while process.poll() is None:  # in steps: Ray interrupts Python, not the system call that waits for a process
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:  # `stop`
        process.terminate()
        process.wait()
        raise
    return process.returncode, time.monotonic() - started
