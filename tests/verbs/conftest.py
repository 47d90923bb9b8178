"""Finished runs on the digits that the verbs are tried on; nobody changes them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlab.cli import main

NOISE = ["--data.label_noise", "0.1"]
# each trains for a second
RUNS = {
    "teacher-seed0": ("digits/teacher", "2", []),
    "independent-seed0": ("digits/independent", "2", NOISE),
    "logit_matching-seed0": ("digits/logit_matching", "2", [*NOISE, "--model.teacher.recipe", "null"]),
    "logit_standardization-seed0": ("digits/logit_standardization", "2", [*NOISE, "--model.teacher.recipe", "null"]),
    "sub_student_ensemble-seed0": ("digits/sub_student_ensemble", "1", ["--trainer.limit_val_batches", "1"]),
}


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `RUNS` under runs/digits."""
    folder, before = tmp_path_factory.mktemp("verbs"), Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["kdlab"])
            patch.setattr("kdlab.training_cli.provide_teachers", lambda *_: None)  # they are short runs
            for name, (config, epochs, options) in RUNS.items():
                arguments = ["fit", "--config", config, "--name", name, "--profile", "false", *options]
                assert main([*arguments, "--trainer.max_epochs", epochs]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def workplace(finished_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the finished runs, entered."""
    monkeypatch.chdir(finished_runs)
    return finished_runs


@pytest.fixture
def copied(workplace: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`copied(name)`: a run of one's own to damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(workplace / "runs" / "digits" / name, tmp_path / "runs" / "digits" / name))

    return copy


@pytest.fixture
def the_error(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """`the_error()`: the message on stderr, which must be its last line, and no traceback."""

    def read() -> str:
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("kdlab: error: ")]
        assert len(errors) == 1
        assert lines[-1] == errors[0]
        assert not any("Traceback" in line for line in lines)
        return errors[0]

    return read
