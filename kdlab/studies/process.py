"""The process of one run: claim it, train, and leave with the exit code of ``fit``.

The executor of one machine forks it; a worker of a cluster starts it with ``python -m kdlab.studies.process``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kdlab.errors import BusyError
from kdlab.profiling.sharing import VARIABLE
from kdlab.studies.executor import ENDED_BY_US
from kdlab.studies.ledger import STARTED, Entry

PR_SET_PDEATHSIG = 1  # of Linux' prctl


def command(study: Path, run_id: str, arguments: Sequence[str], threads: int, per_device: int = 1) -> list[str]:
    """What follows ``python`` for a process that is `work`; last comes the id of the process that starts it."""
    task = {"study": str(study), "run_id": run_id, "arguments": list(arguments), "threads": threads,
            "per_device": per_device}  # fmt: skip
    return ["-m", __name__, json.dumps(task)]


def work(
    study: Path, run_id: str, arguments: Sequence[str], threads: int, parent: int, gpu: int | None = None,
    per_device: int = 1,
) -> None:  # fmt: skip
    """Be the process of a run.

    Args:
        study: folder of the study.
        run_id: of the run.
        arguments: of ``kdlab``, without the place of the run.
        threads: of PyTorch.
        parent: process without which this one stops.
        gpu: the only one that it sees; None for all that its parent sees.
        per_device: runs that may share a device with this one, itself counted.

    Raises:
        SystemExit: at the end, with the exit code of ``fit``, or that of a busy run.
    """
    os.setsid()  # Ctrl-C is for the parent, which tells us once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _stop_without(parent)
    if gpu is not None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen[gpu] if seen != [""] else str(gpu)
    os.environ[VARIABLE] = str(per_device)
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
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    from kdlab.cli import main

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
    print(STARTED + datetime.now(UTC).isoformat(timespec="seconds"), flush=True)


def _stop_without(parent: int) -> None:
    """Stop with a resume point when the parent is killed, so that no run is left that nobody knows of (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    work(
        Path(task["study"]), task["run_id"], task["arguments"], task["threads"], int(sys.argv[2]),
        per_device=task["per_device"],
    )  # fmt: skip
