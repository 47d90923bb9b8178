"""SIGTERM and Ctrl-C: the step is finished, the resume point written, the exit code tells, and a resume is exact."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.methods import Method
from kdlab.run.folder import RunFolder

COMMON = [
    "fit", "--config", "digits/independent", "--trainer.max_epochs", "3", "--trainer.log_every_n_steps", "1",
    "--data.augmentation", "RandomCropFlip", "--data.augmentation.padding", "1", "--name", "run",
]  # fmt: skip


def _run_and_signal(arguments: list[str], number: int, hook: str, step: int) -> None:
    def send(module: Method, *_: object) -> None:
        if module.global_step == step:
            os.kill(os.getpid(), number)

    setattr(Method, hook, send)
    sys.exit(main(arguments))


def stopped(arguments: list[str], number: int, hook: str, step: int) -> int | None:
    """The exit code of a run, in a forked process (imports are done), that signals itself at a step."""
    process = multiprocessing.get_context("fork").Process(target=_run_and_signal, args=(arguments, number, hook, step))
    process.start()
    process.join(120)
    return process.exitcode


def outcome(folder: RunFolder) -> tuple[str, bytes]:
    return folder.metrics.read_text(), folder.student.read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    runs = tmp_path_factory.mktemp("whole")
    assert main([*COMMON, "--runs_dir", str(runs)]) == 0
    return outcome(RunFolder(runs / "digits" / "run"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_train_batch_end", 5),
        ("on_validation_start", 21),
        ("on_train_batch_end", 42),
        ("on_train_batch_end", 63),  # the last of the run, whose validation and test are to come
        pytest.param("on_validation_start", 63, marks=pytest.mark.faults),
    ],  # 21 steps in an epoch
)
def test_a_stopped_run_ends_with_the_code_of_the_signal_and_resumes_exactly(
    number: int, code: int, hook: str, step: int, tmp_path: Path, uninterrupted: tuple[str, bytes],
    tally: Callable[[str, int], None],
) -> None:  # fmt: skip
    arguments = [*COMMON, "--runs_dir", str(tmp_path)]
    assert stopped(arguments, number, hook, step) == code
    folder = RunFolder(tmp_path / "digits" / "run")
    assert folder.last.exists()
    assert not folder.result.exists()
    assert not folder.in_use
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(folder) == uninterrupted
    tally("SIGTERM or Ctrl-C: exit code of the signal, resumed bit-identical", 1)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    def on_train_batch_end(module: Method, *_: object) -> None:
        if module.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    def target() -> None:
        setattr(Method, "on_train_batch_end", on_train_batch_end)  # noqa: B010
        main([*COMMON, "--runs_dir", str(tmp_path)])

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(50)
    assert process.exitcode == -signal.SIGTERM


def test_the_signals_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert main([*COMMON, "--runs_dir", str(tmp_path), "--trainer.max_epochs", "1"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


SHORT = ["--trainer.max_epochs", "1", "--data.train_per_class", "10", "--data.batch_size", "50"]  # two steps


@pytest.mark.parametrize(("hook", "step"), [("on_fit_start", 0), ("on_test_epoch_start", 2)])
def test_outside_of_training_a_run_ends_at_once_with_the_code_of_the_signal(
    hook: str, step: int, tmp_path: Path
) -> None:
    assert stopped([*COMMON, *SHORT, "--runs_dir", str(tmp_path)], signal.SIGTERM, hook, step) == 143
    folder = RunFolder(tmp_path / "digits" / "run")
    assert not folder.result.exists()
    assert not folder.in_use


@pytest.mark.parametrize(
    ("hook", "step"), [("on_fit_start", 0), ("on_validation_start", 2), ("on_test_epoch_start", 2)]
)
def test_slurms_signal_queues_the_job_again_whatever_it_interrupts(
    hook: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4321")
    arguments = [*COMMON, *SHORT, "--runs_dir", str(tmp_path)]
    assert stopped(arguments, signal.SIGUSR1, hook, step) == 138
    assert (tmp_path / "asked").read_text() == "requeue 4321\n"
    assert not RunFolder(tmp_path / "digits" / "run").result.exists()
