"""The job asks SLURM to be queued again, by a `scontrol` that writes down what it was asked."""

import logging
from pathlib import Path

import pytest

from kdlab.errors import UsageError
from kdlab.run.requeue import requeue, slurm_environment


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder is the only one on the PATH that has one; it fails when there is a file `refuse`."""
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ ! -e {tmp_path}/refuse ] || {{ echo no >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "4321")
    return tmp_path


def test_the_job_is_queued_again_by_its_number(scontrol: Path) -> None:
    requeue()
    assert (scontrol / "asked").read_text() == "requeue 4321\n"


def test_a_task_of_an_array_is_queued_again_alone(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "99")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    requeue()
    assert (scontrol / "asked").read_text() == "requeue 99_7\n"


def test_a_refusal_is_said(scontrol: Path, caplog: pytest.LogCaptureFixture) -> None:
    (scontrol / "refuse").touch()
    with caplog.at_level(logging.WARNING):
        requeue()
    assert "job 4321 was not put into the queue again (no); submit it once more" in caplog.text


def test_a_machine_without_scontrol_is_said(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(scontrol / "nowhere"))
    with caplog.at_level(logging.WARNING):
        requeue()
    assert "job 4321 was not put into the queue again" in caplog.text
    assert "scontrol" in caplog.text


def test_lightning_does_not_requeue_beside_us(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_environment() == []
    monkeypatch.setenv("SLURM_NTASKS", "1")
    (environment,) = slurm_environment()
    assert not environment.auto_requeue
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")  # torchrun inside a SLURM job knows the ranks better
    assert slurm_environment() == []


def test_tasks_that_cannot_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(UsageError, match="--ntasks-per-node=2"):
        slurm_environment()
