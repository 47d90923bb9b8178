"""The folder of a run: ``<runs_dir>/<experiment>/<name>``, owned by one live process, never overwritten by another run.

config.yaml             the resolved config; runs again as it is
checkpoints/last.ckpt   where a killed run continues, and the one before it (last-previous.ckpt)
checkpoints/best.safetensors  the student with the best validation accuracy so far
student.safetensors     the trained student that the protocol names
metrics.csv  log.txt  result.json
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from kdlab.atomic import write_text
from kdlab.errors import BusyError, UsageError


class RunFolder:
    """Paths inside a run's folder, and the lock on it.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.log = self.path / "log.txt"
        self.result = self.path / "result.json"
        self.student = self.path / "student.safetensors"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.best = self.path / "checkpoints" / "best.safetensors"
        # the kernel drops this lock when its holder dies, so a stale one cannot exist
        self._lock = FileLock(self.path / ".lock")

    @property
    def holds_a_run(self) -> bool:
        """Whether there is something in the folder that another run would overwrite, or that can be continued."""
        return any(path.exists() for path in (self.last, self.student, self.result))

    def claim(self) -> None:
        """Become the owner of the folder, until `release` or the end of the process.

        Raises:
            BusyError: if another live process owns it.
            UsageError: if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%F %T")}
            for part in self.path.rglob(".*.part"):  # what a killed save left
                part.unlink()
            write_text(self.path / "owner.json", json.dumps(owner) + "\n")
        except Timeout as error:
            raise BusyError(
                f"{self.path} belongs to a running process ({self._owner()}); "
                "wait for it, or give this run another --name"
            ) from error
        except OSError as error:
            self._lock.release()
            raise UsageError(
                f"{self.path} cannot be written ({error.strerror}); choose another folder with --runs_dir"
            ) from error

    @property
    def in_use(self) -> bool:
        """Whether a live process owns the folder. To know it the lock is taken for an instant."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return True
        self._lock.release()
        return False

    def release(self) -> None:
        """Give the folder up."""
        (self.path / "owner.json").unlink(missing_ok=True)
        self._lock.release()

    def _owner(self) -> str:
        try:
            owner = json.loads((self.path / "owner.json").read_text(encoding="utf-8"))
            return f"process {owner['pid']} on {owner['host']} since {owner['started']}"
        except (OSError, ValueError, LookupError, TypeError):
            return "owner unknown"


def claim_new(wanted: Path) -> RunFolder:
    """Claim `wanted`, or ``wanted-2``, ``wanted-3`` ... if finished or interrupted runs are in the way.

    Raises:
        BusyError: if another live process owns `wanted`.
        UsageError: if the folder cannot be written.
    """
    for folder in _numbered(wanted):
        if folder.holds_a_run and not (folder.path == wanted and folder.in_use):
            continue
        try:
            folder.claim()
        except BusyError:
            if folder.path == wanted:
                raise
            continue
        if not folder.holds_a_run:  # somebody may have come and gone in between
            return folder
        folder.release()
    raise AssertionError("unreachable: the numbers do not end")


def newest(wanted: Path) -> RunFolder:
    """The one of ``wanted``, ``wanted-2``, ... that holds a run and was started last: a number may be free again.

    Raises:
        UsageError: if none does.
    """
    numbered = [path for path in wanted.parent.glob(f"{glob.escape(wanted.name)}-*") if _belongs_to(path, wanted)]
    runs = [run for run in map(RunFolder, [wanted, *numbered]) if run.holds_a_run]
    if not runs:
        raise UsageError(
            f"there is no run in {wanted} to continue or test; start it with: python -m kdlab fit --config FILE"
        )
    return max(runs, key=lambda run: (_started_s(run), len(run.path.name), run.path.name))


def _belongs_to(path: Path, wanted: Path) -> bool:
    """Whether a folder is a numbered one of `wanted`, and not of a run that was given such a name."""
    if not re.fullmatch(r"-\d+", path.name.removeprefix(wanted.name)):
        return False
    try:
        name = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return False
    return bool(name == wanted.name)


def _started_s(run: RunFolder) -> float:
    """When a run was started, by its config, which is written first."""
    return run.config.stat().st_mtime if run.config.exists() else 0.0


def _numbered(wanted: Path) -> Iterator[RunFolder]:
    yield RunFolder(wanted)
    for number in itertools.count(2):
        yield RunFolder(wanted.with_name(f"{wanted.name}-{number}"))
