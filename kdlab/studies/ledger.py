"""Which runs of a study are done: read from the run folders themselves, so that nothing can disagree.

<runs_dir>/studies/<study>/<id>/    the run folder; result.json in it: done; failed.json: failed, with the reason
<runs_dir>/studies/<study>/.<id>.lock    held by the process that works on the run: running

Otherwise the run is pending; with a resume point in its folder it continues there. The kernel drops the lock when its
holder dies, so it is heartbeat and claim in one, and both files appear by rename.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from kdlab.atomic import write_text
from kdlab.errors import KDLabError
from kdlab.run.folder import RunFolder

State = Literal["pending", "running", "done", "failed"]
STATES: tuple[State, ...] = ("done", "running", "failed", "pending")
STARTED = "kdlab: this run starts, or continues, at "  # before the output of each attempt
LAST_LINES = 12  # of a failed run's output, kept in failed.json
LOOKING_S = 2.0  # whoever asks for the state holds the lock for microseconds


class FailedRunsError(KDLabError):
    """Some runs of a study failed; the others are done (exit code 6)."""

    exit_code = 6


class Entry:
    """One run of a study on disk.

    Args:
        study: folder of the study.
        run_id: of the run.
    """

    def __init__(self, study: Path, run_id: str) -> None:
        self.id = run_id
        self.folder = RunFolder(study / run_id)
        self.failure = self.folder.path / "failed.json"
        self.output = self.folder.path / "output.txt"
        self._lock = FileLock(study / f".{run_id}.lock")

    @property
    def state(self) -> State:
        """What the files and the lock say."""
        if self.folder.result.exists():
            return "done"
        try:
            with self._lock.acquire(timeout=0):
                pass
        except Timeout:
            return "running"
        # somebody may have finished it in between
        return "done" if self.folder.result.exists() else "failed" if self.failure.exists() else "pending"

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Be the one who works on the run; yields whether we are, which lasts until the block or the process ends."""
        try:
            lock = self._lock.acquire(timeout=LOOKING_S, poll_interval=0.01)
        except Timeout:
            yield False
            return
        with lock:
            yield True

    @property
    def place(self) -> list[str]:
        """Options of ``fit`` that say where the run lies, and that it continues where it can."""
        study = self.folder.path.parent
        options = ["--runs_dir", str(study.parent.parent), "--experiment", f"{study.parent.name}/{study.name}"]
        options += ["--name", self.id]
        return [*options, "--ckpt_path", "last"] if self.folder.last.exists() else options

    def fail(self, exit_code: int) -> None:
        """Remember that the run failed, and what its last attempt said."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines() if self.output.exists() else []
        attempts = [number for number, line in enumerate(lines) if line.startswith(STARTED)]
        lines = lines[attempts[-1] + 1 :] if attempts else lines
        content = {"exit_code": exit_code, "output": lines[-LAST_LINES:]}
        write_text(self.failure, json.dumps(content, indent=1) + "\n")

    @property
    def reason(self) -> str:
        """Why the run failed, in one line."""
        try:
            content = json.loads(self.failure.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return f"{self.failure} cannot be read"
        said = [line for line in content["output"] if line.startswith("kdlab: error: ")]
        last = said[-1].removeprefix("kdlab: error: ") if said else next(iter(content["output"][-1:]), "no output")
        return f"exit code {content['exit_code']}: {last}"


def study_folder(runs_dir: Path, name: str) -> Path:
    """Where a study keeps its runs."""
    return runs_dir / "studies" / name


def leftovers(study: Path, ids: set[str]) -> list[Path]:
    """Finished runs in the folder that are not in the plan: of an earlier version of the study file."""
    return sorted(path.parent for path in study.glob("*/result.json") if path.parent.name not in ids)
