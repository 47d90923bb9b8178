"""One process of a job is killed, fails or is told to stop: all end, soon, with a message, and the run goes on later."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist
from lightning.pytorch import Trainer

from kdlab.cli import main
from kdlab.errors import IntegrityError, NumericalError
from kdlab.methods import Method
from kdlab.run.folder import RunFolder
from kdlab.run.peers import LOST
from kdlab.run.teacher_check import TeacherCheck
from kdlab.teachers import Teacher

TwoRanks = Callable[..., list[int | None]]
Deed = Callable[[Method], object]

COMMON = [
    "fit", "--config", "digits/independent", "--config", "run/ddp", "--trainer.max_epochs", "2", "--name", "run",
    "--data.batch_size", "16", "--data.train_per_class", "32", "--trainer.callbacks+=ResumePoint",
    "--trainer.callbacks.every_n_steps", "4", "--profile", "false",
]  # fmt: skip
STEPS_PER_EPOCH = 10  # 320 images in batches of 2 x 16


def kill(_: Method) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate(_: Method) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def wait(_: Method) -> None:
    time.sleep(1000)


def fail(_: Method) -> None:
    raise RuntimeError("made up")


def no_number(_: Method) -> None:
    raise NumericalError("label_loss is nan at step 5")


def run_with(arguments: list[str], deeds: dict[int, Deed], hook: str = "on_train_batch_end", step: int = 5) -> int:
    """What each process does: train, and at a step what is asked of its rank."""

    def act(module: Method, *_: object) -> None:
        if module.global_step == step and module.global_rank in deeds:
            deeds[module.global_rank](module)

    setattr(Method, hook, act)
    return main(arguments)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    return [*COMMON, "--runs_dir", str(tmp_path)]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "digits" / "run")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, two_ranks: TwoRanks) -> bytes:
    """The student of a run of two processes that nobody disturbs."""
    runs = tmp_path_factory.mktemp("whole")
    assert two_ranks(main, [*COMMON, "--runs_dir", str(runs)]) == [0, 0]
    return RunFolder(runs / "digits" / "run").student.read_bytes()


@pytest.mark.parametrize(
    ("deeds", "codes"),
    [
        pytest.param({1: kill}, [LOST, -signal.SIGKILL], marks=pytest.mark.faults),
        pytest.param({0: kill}, [-signal.SIGKILL, LOST], marks=pytest.mark.faults),
        ({1: kill, 0: wait}, [LOST, -signal.SIGKILL]),  # no collective operation breaks off: only the watch knows
    ],
)
def test_when_a_process_is_killed_the_other_ends_with_a_message_and_the_run_continues(
    deeds: dict[int, Deed],
    codes: list[int],
    arguments: list[str],
    folder: RunFolder,
    uninterrupted: bytes,
    two_ranks: TwoRanks,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert two_ranks(run_with, arguments, deeds) == codes
    said = capfd.readouterr().err
    (killed,) = (rank for rank, deed in deeds.items() if deed is kill)
    assert said.count(f"process {killed} of 2 (counted from 0) is gone") == 1
    assert f"--ckpt_path {folder.last}" in said
    assert "Traceback" not in said
    assert not folder.in_use
    assert two_ranks(main, [*arguments, "--ckpt_path", "last"]) == [0, 0]
    assert folder.student.read_bytes() == uninterrupted


@pytest.mark.parametrize(
    ("deed", "code", "message"), [(fail, 2, "RuntimeError: made up"), (no_number, 5, "label_loss is nan at step 5")]
)
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.faults), 1])
def test_when_a_process_fails_the_other_ends_with_its_code(
    rank: int,
    deed: Deed,
    code: int,
    message: str,
    arguments: list[str],
    two_ranks: TwoRanks,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert two_ranks(run_with, arguments, {rank: deed, 1 - rank: wait}) == [code, code]
    said = capfd.readouterr().err
    assert said.count(f"kdlab: error: {message}") == 1
    assert said.count(f"process {rank} of 2 (counted from 0) failed with exit code {code}") == 1


def test_a_failure_after_the_training_ends_all_too(
    arguments: list[str], two_ranks: TwoRanks, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def save_weights(*_: object) -> None:
        raise IntegrityError("the disk is full")

    monkeypatch.setattr("kdlab.run.conclusion.save_weights", save_weights)  # the first process alone does so
    assert two_ranks(main, [*arguments, "--trainer.max_epochs", "1"]) == [4, 4]
    assert capfd.readouterr().err.count("the disk is full") == 1


@pytest.mark.parametrize(
    "deeds",
    [
        pytest.param({0: terminate}, marks=pytest.mark.faults),
        {1: terminate},
        pytest.param({0: terminate, 1: terminate}, marks=pytest.mark.faults),
    ],
)
def test_sigterm_to_any_process_stops_all_behind_a_resume_point(
    deeds: dict[int, Deed], arguments: list[str], folder: RunFolder, uninterrupted: bytes, two_ranks: TwoRanks
) -> None:
    assert two_ranks(run_with, arguments, deeds) == [143, 143]
    assert folder.last.exists()
    assert not folder.result.exists()
    assert not folder.in_use
    assert two_ranks(main, [*arguments, "--ckpt_path", "last"]) == [0, 0]
    assert folder.student.read_bytes() == uninterrupted


def test_sigterm_in_the_test_ends_all(arguments: list[str], two_ranks: TwoRanks) -> None:
    arguments += ["--trainer.max_epochs", "1"]
    assert two_ranks(run_with, arguments, {1: terminate}, "on_test_epoch_start", STEPS_PER_EPOCH) == [143, 143]


def run_with_a_check(arguments: list[str]) -> int:
    """What each process does: train, and be told to stop, in the second one, while the teacher is looked at."""
    collect = TeacherCheck._collect

    def collected(check: TeacherCheck, trainer: Trainer, module: Method, teacher: Teacher) -> object:
        if trainer.global_rank == 1:
            terminate(module)
        return collect(check, trainer, module, teacher)

    setattr(TeacherCheck, "_collect", collected)  # noqa: B010 (mypy refuses to assign to a method)
    return main(arguments)


@pytest.mark.faults
def test_sigterm_before_the_first_step_ends_all(arguments: list[str], two_ranks: TwoRanks) -> None:
    untrained = ["--model.teacher.recipe", "null", "--model.teacher.checkpoint", "null"]
    arguments = ["fit", "--config", "digits/logit_matching", *arguments[3:], *untrained]
    assert two_ranks(run_with_a_check, arguments) == [143, 143]


# -- what a stop costs --------------------------------------------------------------------------------------------


def count_collectives(arguments: list[str], out: Path) -> int:
    """Train, and write down how often this process waited for the other in the steps of an epoch."""
    counts = dict.fromkeys(("broadcast", "all_reduce", "barrier", "all_gather", "all_gather_object"), 0)

    def counted(name: str) -> Callable[..., object]:
        operation = getattr(dist, name)

        def call(*args: object, **kwargs: object) -> object:
            counts[name] += 1
            return operation(*args, **kwargs)

        return call

    def start(*_: object) -> None:
        for name in counts:
            setattr(dist, name, counted(name))

    def stop(module: Method, batch: object, batch_idx: int) -> None:
        if batch_idx == 16:  # before its step
            (out / f"{module.global_rank}.txt").write_text(str(sum(counts.values())))

    setattr(Method, "on_train_epoch_start", start)  # noqa: B010 (mypy refuses to assign to a method)
    step = Method.training_step

    def training_step(module: Method, batch: object, batch_idx: int) -> object:
        stop(module, batch, batch_idx)
        return step(module, batch, batch_idx)  # type: ignore[arg-type]

    setattr(Method, "training_step", training_step)  # noqa: B010
    return main(arguments)


def test_in_sixteen_steps_the_processes_wait_twice_for_each_other(
    arguments: list[str], tmp_path: Path, two_ranks: TwoRanks
) -> None:
    arguments += ["--trainer.max_epochs", "1", "--trainer.callbacks.every_n_steps", "0", "--data.batch_size", "8"]
    assert two_ranks(count_collectives, arguments, tmp_path) == [0, 0]
    # beside the means of gradients, which DistributedDataParallel takes; Lightning alone waits in each of the steps
    assert [int((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)] == [2, 2]
