"""A killed run that is continued is the run that was never killed: same losses, means, metrics and student bytes."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.run.folder import RunFolder

Outcome = Callable[[RunFolder], dict[str, object]]
RunAndKill = Callable[[list[str], str, int], None]

EPOCHS, STEPS_PER_EPOCH = 3, 21
LAST_STEP = EPOCHS * STEPS_PER_EPOCH

# dropout, augmentation, a schedule and a teacher: everything that a resume has to continue
COMMON = [
    "fit", "--config", "digits/logit_matching", "--trainer.max_epochs", str(EPOCHS), "--trainer.log_every_n_steps", "1",
    "--model.student", "kdlab.models.MNISTPerceptron", "--model.student.image_size", "8",
    "--data.augmentation", "RandomCropFlip", "--data.augmentation.padding", "1",
    "--trainer.callbacks+=ResumePoint", "--trainer.callbacks.every_n_steps", "4",
]  # fmt: skip


def command(tmp: Path, teacher: Path, *more: str) -> list[str]:
    return [*COMMON, "--runs_dir", str(tmp), "--model.teacher.checkpoint", str(teacher),
            "--model.teacher.recipe", "null", *more]  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, digits_teacher: Path, outcome: Outcome
) -> dict[str, object]:
    runs = tmp_path_factory.mktemp("whole")
    assert main(command(runs, digits_teacher, "--name", "run")) == 0
    return outcome(RunFolder(runs / "digits" / "run"))


draw = random.Random(20261121)
KILLS = [
    *(("step", draw.randrange(5, LAST_STEP)) for _ in range(5)),
    ("step", STEPS_PER_EPOCH),  # the last batch of an epoch, before its validation
    ("step", 2 * STEPS_PER_EPOCH + 1),  # the first batch of an epoch
    ("step", LAST_STEP),
    ("validation", 1),
    ("save", 7),
]


@pytest.mark.slow
@pytest.mark.parametrize(("when", "number"), KILLS)
def test_a_killed_run_continues_as_if_nothing_had_happened(
    when: str, number: int, tmp_path: Path, digits_teacher: Path, uninterrupted: dict[str, object],
    run_and_kill: RunAndKill, outcome: Outcome,
) -> None:  # fmt: skip
    arguments = command(tmp_path, digits_teacher, "--name", "run")
    run_and_kill(arguments, when, number)
    folder = RunFolder(tmp_path / "digits" / "run")
    assert not folder.result.exists()
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(folder) == uninterrupted


def test_a_run_may_be_killed_again_and_again(
    tmp_path: Path, digits_teacher: Path, uninterrupted: dict[str, object], run_and_kill: RunAndKill, outcome: Outcome
) -> None:
    arguments = command(tmp_path, digits_teacher, "--name", "run")
    run_and_kill(arguments, "step", 6)
    for step in (11, 21, 30, 47):
        run_and_kill([*arguments, "--ckpt_path", "last"], "step", step)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(RunFolder(tmp_path / "digits" / "run")) == uninterrupted


def test_gradient_accumulation_resumes_exactly(
    tmp_path: Path, digits_teacher: Path, run_and_kill: RunAndKill, outcome: Outcome
) -> None:
    more = ["--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "2"]
    assert main(command(tmp_path, digits_teacher, *more, "--name", "whole")) == 0
    arguments = command(tmp_path, digits_teacher, *more, "--name", "killed")
    run_and_kill(arguments, "step", 15)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    whole, killed = (outcome(RunFolder(tmp_path / "digits" / name)) for name in ("whole", "killed"))
    assert killed == whole


def test_resuming_with_another_config_is_refused_with_the_difference(
    tmp_path: Path, digits_teacher: Path, run_and_kill: RunAndKill, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path, digits_teacher, "--name", "run")
    run_and_kill(arguments, "step", 6)
    assert main([*arguments, "--ckpt_path", "last", "--model.temperature", "3"]) == 2
    assert "model.temperature was 2.0, is 3.0" in capsys.readouterr().err


def test_there_is_nothing_to_resume_where_no_run_is(
    tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, digits_teacher, "--name", "run", "--ckpt_path", "last")) == 2
    assert "there is no run in" in capsys.readouterr().err
