import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """`run_and_kill(arguments, when, number)`: a run that dies at a step, a validation or a save."""
    return _run_and_kill


def _run_and_kill(arguments: list[str], when: str, number: int) -> None:
    """Run in a forked process (imports are done) that kills itself, as the kernel or a power cut would."""
    process = multiprocessing.get_context("fork").Process(target=_suicidal, args=(arguments, when, number))
    process.start()
    process.join(120)
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
    main(arguments)


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
