"""A killed run that is continued is the run that was never killed: same losses, means, metrics and student bytes."""

import json
import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.methods import Method
from kdlab.run.checkpoints import AtomicCheckpointIO
from kdlab.run.folder import RunFolder

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


def run_and_kill(arguments: list[str], when: str, number: int) -> None:
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

        Method.on_train_batch_end = on_train_batch_end
    elif when == "validation":

        def on_validation_start(module: Method) -> None:
            if module.current_epoch == number:
                kill()

        Method.on_validation_start = on_validation_start
    elif when == "save":
        write, calls = AtomicCheckpointIO.save_checkpoint, []

        def save_checkpoint(io: AtomicCheckpointIO, checkpoint: dict, path: Path, **options: object) -> None:
            calls.append(path)
            if len(calls) == number:
                Path(path).with_name(f".{Path(path).name}.999.part").write_bytes(b"torn")
                kill()
            write(io, checkpoint, path, **options)

        AtomicCheckpointIO.save_checkpoint = save_checkpoint
    main(arguments)


def outcome(folder: RunFolder) -> dict[str, object]:
    result = json.loads(folder.result.read_text())
    return {
        "metrics": folder.metrics.read_text(),
        "student": folder.student.read_bytes(),
        "test": result["student"]["test"],
        "protocol": result["protocol"],
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, digits_teacher: Path) -> dict[str, object]:
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
    when: str, number: int, tmp_path: Path, digits_teacher: Path, uninterrupted: dict[str, object]
) -> None:
    arguments = command(tmp_path, digits_teacher, "--name", "run")
    run_and_kill(arguments, when, number)
    folder = RunFolder(tmp_path / "digits" / "run")
    assert not folder.result.exists()
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(folder) == uninterrupted


@pytest.mark.slow
def test_a_run_may_be_killed_again_and_again(
    tmp_path: Path, digits_teacher: Path, uninterrupted: dict[str, object]
) -> None:
    arguments = command(tmp_path, digits_teacher, "--name", "run")
    run_and_kill(arguments, "step", 6)
    for step in (11, 21, 30, 47):
        run_and_kill([*arguments, "--ckpt_path", "last"], "step", step)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(RunFolder(tmp_path / "digits" / "run")) == uninterrupted


@pytest.mark.slow
def test_gradient_accumulation_resumes_exactly(tmp_path: Path, digits_teacher: Path) -> None:
    more = ["--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "2"]
    assert main(command(tmp_path, digits_teacher, *more, "--name", "whole")) == 0
    arguments = command(tmp_path, digits_teacher, *more, "--name", "killed")
    run_and_kill(arguments, "step", 15)
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    whole, killed = (outcome(RunFolder(tmp_path / "digits" / name)) for name in ("whole", "killed"))
    assert killed == whole


def test_resuming_with_another_config_is_refused_with_the_difference(
    tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]
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
