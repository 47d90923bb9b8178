"""Every call of a run that changes a file fails once: a mapped exit code, nothing corrupt, and a run that goes on."""

import builtins
import errno
import io
import json
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kdlab.models import MNISTPerceptron
from kdlab.run.checkpoints import AtomicCheckpointIO
from kdlab.run.folder import RunFolder
from kdlab.weights import load_weights

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)  # in turn
COMMON = [
    "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "0", "--name", "run", "--data.train_per_class", "10",
    "--data.batch_size", "50",
]  # fmt: skip
KINDS = ("digits/independent", "digits/cached_teacher")  # the latter with its teacher's answers below the same folder
SHARDS = 4


class FailingFile:
    """A file opened for writing, each write and flush of which may fail."""

    def __init__(self, disk: "FailingDisk", file: Any) -> None:
        self._disk, self._file = disk, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: Any) -> Any:
        self._disk.call(None)
        return self._file.write(content)

    def flush(self) -> None:
        self._disk.call(None)
        self._file.flush()

    def truncate(self, size: int) -> int:
        self._disk.call(None)
        return int(self._file.truncate(size))


class FailingDisk:
    """The file system below a folder, whose `fails`-th changing call fails; all others work.

    Args:
        folder: others are left alone.
        fails: 1 for the first call; 0 for none.
        tell: file that gets the number of calls, written at the end of the process.
    """

    def __init__(self, folder: Path, fails: int, tell: Path) -> None:
        self.folder, self.fails, self.calls, self.tell = str(folder), fails, 0, tell
        self.real_open = io.open

    def call(self, path: object) -> None:
        """Count, and fail if it is time."""
        self.calls += 1
        if self.calls == self.fails:
            number = ERRORS[self.fails % len(ERRORS)]
            raise OSError(number, os.strerror(number), *([] if path is None else [str(path)]))

    def install(self) -> None:
        """Take the place of the calls, in this process."""
        for name in ("replace", "link", "unlink", "mkdir", "chmod", "fsync", "pwrite"):
            setattr(os, name, self._counted(getattr(os, name)))
        os_open = os.open

        def low_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self._mine(path):
                self.call(path)
            return os_open(path, flags, *rest, **options)

        def high_open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if not set(mode) & set("wa+x") or not self._mine(file):
                return self.real_open(file, mode, *rest, **options)
            self.call(file)
            return FailingFile(self, self.real_open(file, mode, *rest, **options))

        setattr(os, "open", low_open)  # noqa: B010
        setattr(io, "open", high_open)  # noqa: B010
        setattr(builtins, "open", high_open)  # noqa: B010
        leave = os._exit

        def told_exit(code: int) -> None:
            with self.real_open(self.tell, "w") as file:
                file.write(str(self.calls))
            leave(code)

        setattr(os, "_exit", told_exit)  # noqa: B010

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(target: Any, *rest: Any, **options: Any) -> Any:
            if self._mine(target):
                self.call(None if isinstance(target, int) else target)
            return function(target, *rest, **options)

        return counted

    def _mine(self, path: Any) -> bool:
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        return str(path).startswith(self.folder)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(
    kind: str, in_child: Callable[..., Any], tmp_path: Path, digits_teacher: Path
) -> Callable[..., tuple[Any, int]]:
    """`run(runs, fails, *more)`: how a run ended, and how many calls it made."""

    def run(runs: Path, fails: int, *more: str) -> tuple[Any, int]:
        tell = tmp_path / "calls"
        arguments = ["fit", "--config", kind, *COMMON, "--runs_dir", str(runs), *more]
        if kind == "digits/cached_teacher":
            arguments += ["--model.teacher.cache_dir", str(runs / "cache"), "--model.teacher.place", "disk",
                          "--model.teacher.teacher.checkpoint", str(digits_teacher),
                          "--model.teacher.teacher.recipe", "null"]  # fmt: skip
        ended = in_child(arguments, partial(install, runs, fails, tell))
        return ended, int(tell.read_text())

    return run


def install(runs: Path, fails: int, tell: Path) -> None:
    FailingDisk(runs, fails, tell).install()


def expect_a_run_that_survives(
    runs: Path, fails: int, run: Callable[..., tuple[Any, int]], outcome: dict[str, Any]
) -> None:
    """Let one call fail, look at what is left, and run on."""
    folder = RunFolder(runs / "digits" / "run")
    ended, calls = run(runs, fails)
    assert calls >= fails, "the call that was to fail was not made"
    assert ended.code in (0, 2, 4), ended.said
    assert "Traceback" not in ended.said, ended.said
    if ended.code:
        assert str(runs) in ended.error
    if folder.result.exists():
        json.loads(folder.result.read_text())
    for file in (folder.best, folder.student):
        if file.exists():
            load_weights(MNISTPerceptron(image_size=8, dropout=0.0), file)
    resume = []
    if folder.last.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that the one before had to be taken
            AtomicCheckpointIO().load_checkpoint(folder.last)
        resume = ["--ckpt_path", "last"]
    if ended.code:
        again, _ = run(runs, 0, *resume)
        assert again.code == 0, again.said
        assert not list(runs.rglob(".*.part"))
        assert folder.metrics.read_text() == outcome["metrics"]  # no row lost, none twice
    assert folder.student.read_bytes() == outcome["student"]


@pytest.fixture
def whole(run: Callable[..., tuple[Any, int]], tmp_path: Path) -> tuple[dict[str, Any], int]:
    """What a run in which nothing fails leaves behind, and its number of calls."""
    ended, calls = run(tmp_path / "whole", 0)
    assert ended.code == 0, ended.said
    folder = RunFolder(tmp_path / "whole" / "digits" / "run")
    return {"student": folder.student.read_bytes(), "metrics": folder.metrics.read_text()}, calls


def test_a_call_that_fails_once_costs_at_most_a_new_start(
    tmp_path: Path, run: Callable[..., tuple[Any, int]], whole: tuple[dict[str, Any], int]
) -> None:
    outcome, calls = whole
    assert calls > 50
    for number, share in enumerate((0.3, 0.9)):
        expect_a_run_that_survives(tmp_path / f"runs{number}", int(share * calls), run, outcome)


@pytest.mark.faults
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_each_call_fails_once(
    shard: int,
    tmp_path: Path,
    run: Callable[..., tuple[Any, int]],
    whole: tuple[dict[str, Any], int],
    tally: Callable[[str, int], None],
) -> None:
    outcome, calls = whole
    chosen = range(1 + shard, calls + 1, SHARDS)
    for fails in chosen:
        expect_a_run_that_survives(tmp_path / f"runs{fails}", fails, run, outcome)
    tally(
        "a call that changes a file fails (each of a run once): exit code 0, 2 or 4, nothing corrupt, resumed",
        len(chosen),
    )
