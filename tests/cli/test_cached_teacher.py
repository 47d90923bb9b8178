"""A killed run with a remembered teacher is the run that was never killed; two processes fill one file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.run.folder import RunFolder

Outcome = Callable[[RunFolder], dict[str, object]]
RunAndKill = Callable[[list[str], str, int], None]


def command(tmp: Path, teacher: Path, *more: str) -> list[str]:
    return [
        "--config", "digits/cached_teacher", "--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "1",
        "--model.student", "kdlab.models.MNISTPerceptron", "--model.student.image_size", "8",
        "--trainer.callbacks+=ResumePoint", "--trainer.callbacks.every_n_steps", "4", "--runs_dir", str(tmp),
        "--model.teacher.teacher.checkpoint", str(teacher), "--model.teacher.teacher.recipe", "null", *more,
    ]  # fmt: skip


def cache_in(folder: Path) -> list[str]:
    return ["--model.teacher.cache_dir", str(folder)]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, digits_teacher: Path) -> Path:
    """A folder with all answers."""
    folder = tmp_path_factory.mktemp("complete")
    assert main(["cache", *command(folder, digits_teacher), *cache_in(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, complete: Path, digits_teacher: Path, outcome: Outcome
) -> dict[str, object]:
    """A run on the complete cache."""
    runs = tmp_path_factory.mktemp("whole")
    assert main(["fit", *command(runs, digits_teacher, "--name", "run"), *cache_in(complete)]) == 0
    return outcome(RunFolder(runs / "digits" / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("step", [6, 21, 47])
def test_on_a_complete_cache_a_killed_run_continues_bit_for_bit(
    step: int, complete: Path, uninterrupted: dict[str, object], tmp_path: Path, digits_teacher: Path,
    run_and_kill: RunAndKill, outcome: Outcome,
) -> None:  # fmt: skip
    arguments = ["fit", *command(tmp_path, digits_teacher, "--name", "run"), *cache_in(complete)]
    run_and_kill(arguments, "step", step)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(RunFolder(tmp_path / "digits" / "run")) == uninterrupted


def test_a_run_that_fills_its_cache_on_the_way_is_killed_and_continues_the_same(
    tmp_path: Path, digits_teacher: Path, run_and_kill: RunAndKill, outcome: Outcome
) -> None:
    whole, killed = (
        ["fit", *command(tmp_path, digits_teacher, "--name", name), *cache_in(tmp_path / name)]
        for name in ("whole", "killed")
    )
    assert main(whole) == 0
    run_and_kill(killed, "step", 30)
    assert main([*killed, "--ckpt_path", "last"]) == 0
    # what was written before the kill is there, so not even the rounding differs
    assert outcome(RunFolder(tmp_path / "digits" / "killed")) == outcome(RunFolder(tmp_path / "digits" / "whole"))


def test_two_processes_fill_one_file(
    tmp_path: Path, digits_teacher: Path, two_ranks: Callable[..., list[int | None]]
) -> None:
    more = ["--config", "run/ddp", "--trainer.devices", "2", "--data.batch_size", "32", "--profile", "false"]
    arguments = ["fit", *command(tmp_path, digits_teacher, *more), *cache_in(tmp_path / "cache")]
    assert two_ranks(main, arguments) == [0, 0]
    assert json.loads((tmp_path / "digits" / "cached_teacher-seed0" / "result.json").read_text())["world_size"] == 2
    (file,) = (tmp_path / "cache").glob("*/rows.bin")
    content = file.read_bytes()
    present = sum(any(content[at : at + 24]) for at in range(0, len(content), 24))
    assert 2 * 1292 < present < 3 * 1293  # of both processes, three epochs of nine views
