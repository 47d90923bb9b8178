import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kdlab.cli import main
from kdlab.methods import Method
from kdlab.run.checkpoints import AtomicCheckpointIO
from kdlab.run.folder import RunFolder


@pytest.fixture(scope="session")
def digits_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained teacher of the digits: 3 epochs, about 97%."""
    runs = tmp_path_factory.mktemp("teacher")
    before, sys.argv = sys.argv, ["kdlab"]
    code = main(
        ["fit", "--config", "digits/teacher", "--runs_dir", str(runs), "--name", "t", "--trainer.max_epochs", "3"]
    )
    sys.argv = before
    assert code == 0
    return runs / "digits" / "t" / "student.safetensors"


@pytest.fixture(scope="session")
def run_and_kill() -> Callable[[list[str], str, int], None]:
    """`run_and_kill(arguments, when, number)`: a run that dies at a step, a validation, a save, a write or the test."""
    return _run_and_kill


def _run_and_kill(arguments: list[str], when: str, number: int) -> None:
    """Run in a forked process (imports are done) that kills itself, as the kernel or a power cut would."""
    process = multiprocessing.get_context("fork").Process(target=_suicidal, args=(arguments, when, number))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL


def _suicidal(arguments: list[str], when: str, number: int) -> None:
    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "step":  # after the optimizer step, and after the resume point of it if there is one

        def on_train_batch_end(module: Method, *_: object) -> None:
            if module.global_step == number:
                kill()

        setattr(Method, "on_train_batch_end", on_train_batch_end)  # noqa: B010 (mypy refuses to assign to a method)
    elif when == "validation":

        def on_validation_start(module: Method) -> None:
            if module.current_epoch == number:
                kill()

        setattr(Method, "on_validation_start", on_validation_start)  # noqa: B010
    elif when == "save":
        write, calls = AtomicCheckpointIO.save_checkpoint, []

        def save_checkpoint(io: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: object) -> None:
            calls.append(path)
            if len(calls) == number:
                Path(path).with_name(f".{Path(path).name}.999.part").write_bytes(b"torn")
                kill()
            write(io, checkpoint, path, **options)

        setattr(AtomicCheckpointIO, "save_checkpoint", save_checkpoint)  # noqa: B010
    elif when == "test":
        setattr(Method, "on_test_start", kill)  # noqa: B010
    else:
        _die_at_a_resume_point(when, number, kill)
    main(arguments)


def _die_at_a_resume_point(when: str, number: int, kill: Callable[[], None]) -> None:
    """Die when the first half of the `number`-th one is written, or in the last instant before it gets its name."""
    write_bytes, replace = Path.write_bytes, Path.replace
    calls: list[Path] = []

    def is_the_one(path: Path) -> bool:
        if path.name.startswith(("last.ckpt", ".last.ckpt.")):
            calls.append(path)
        return len(calls) == number

    def write_half(path: Path, data: bytes) -> int:
        if when == "write" and is_the_one(path):
            write_bytes(path, bytes(data)[: len(data) // 2])
            kill()
        return write_bytes(path, data)

    def mortal_replace(path: Path, target: Path) -> Path:
        if when == "rename" and is_the_one(Path(target)):
            kill()
        return replace(path, target)

    setattr(Path, "write_bytes", write_half)  # noqa: B010
    setattr(Path, "replace", mortal_replace)  # noqa: B010


@pytest.fixture(scope="session")
def outcome() -> Callable[[RunFolder], dict[str, object]]:
    """`outcome(folder)`: all that a finished run leaves behind and that a resume must not change."""
    return _outcome


def _outcome(folder: RunFolder) -> dict[str, object]:
    result = json.loads(folder.result.read_text())
    return {
        "metrics": folder.metrics.read_text(),
        "student": folder.student.read_bytes(),
        "test": result["student"]["test"],
        "protocol": result["protocol"],
        "answered": result.get("teacher", {}).get("images_answered"),
    }


class Ended(NamedTuple):
    """What became of a command: its exit code, what it said, and that as the line of an error."""

    code: int | None
    said: str

    @property
    def error(self) -> str:
        """The last line, which must be the only one of an error, without a traceback."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        assert "Traceback" not in self.said, self.said
        assert sum(line.startswith("kdlab: error: ") for line in lines) == 1, self.said
        assert lines[-1].startswith("kdlab: error: "), self.said
        return lines[-1]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run in this process: what it imports on the way need not be imported in each fork of it."""
    before, sys.argv = sys.argv, ["kdlab"]
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path_factory.mktemp("warm"))]
    assert main([*arguments, "--trainer.max_epochs", "1", "--data.train_per_class", "10", "--profile", "false"]) == 0
    sys.argv = before


@pytest.fixture
def in_child(tmp_path: Path, warm: None) -> Callable[..., Ended]:
    """`in_child(arguments, prepare)`: the command in a forked process, after `prepare()` there."""

    def run(arguments: list[str], prepare: Callable[[], None] = lambda: None) -> Ended:
        heard = tmp_path / "heard.txt"
        process = multiprocessing.get_context("fork").Process(target=_speaking_to, args=(heard, arguments, prepare))
        process.start()
        process.join(240)
        return Ended(process.exitcode, heard.read_text(encoding="utf-8", errors="replace"))

    return run


def _speaking_to(heard: Path, arguments: list[str], prepare: Callable[[], None]) -> None:
    descriptor = os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    prepare()
    code = main(arguments)
    sys.stdout.flush()
    os._exit(code)
