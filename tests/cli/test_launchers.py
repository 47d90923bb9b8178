"""Who starts the processes: SLURM, torchrun, Lightning's own launcher; and what a signal or a kill does there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.methods import Method
from kdlab.run.folder import RunFolder
from kdlab.run.peers import LOST

TwoRanks = Callable[..., list[int | None]]
COMMON = [
    "fit", "--config", "digits/independent", "--config", "run/ddp", "--trainer.max_epochs", "2", "--name", "run",
    "--data.batch_size", "16", "--profile", "false",
]  # fmt: skip
FOREVER = [
    "--trainer.max_epochs",
    "5000",
    "--trainer.callbacks+=ResumePoint",
    "--trainer.callbacks.every_n_steps",
    "10",
]


def as_slurm_task(arguments: list[str], *signalled: int, hook: str = "on_train_batch_end", step: int = 10) -> int:
    """What `srun` starts on one node: a rank that knows itself from SLURM's variables, and may get the signal.

    At its end it writes down whether SLURM had queued the job again by then.
    """
    rank = os.environ.pop("LOCAL_RANK")
    os.environ |= {
        "SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "kdlab", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0",
    }  # fmt: skip

    def send(module: Method, *_: object) -> None:
        if module.global_step == step and module.global_rank in signalled:
            os.kill(os.getpid(), signal.SIGUSR1)

    setattr(Method, hook, send)
    code = main(arguments)
    if Path("scontrol").exists():
        Path(f"queued-when-{rank}-ended").write_text(str(Path("asked").exists()))
    return code


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder: takes its time, and writes down what it was asked."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\nsleep 0.5\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("signalled", [0, 1])
def test_slurms_signal_writes_a_resume_point_and_queues_the_job_again(
    signalled: int, tmp_path: Path, two_ranks: TwoRanks, scontrol: None
) -> None:
    arguments = [*COMMON, "--runs_dir", str(tmp_path / "runs")]
    assert two_ranks(as_slurm_task, arguments, signalled) == [128 + signal.SIGUSR1] * 2
    folder = RunFolder(tmp_path / "runs" / "digits" / "run")
    assert folder.last.exists()
    assert (tmp_path / "asked").read_text() == "requeue 4321\n"  # once, whichever task got the signal
    for rank in range(2):  # with --kill-on-bad-exit=1 the first that ends takes all with it
        assert (tmp_path / f"queued-when-{rank}-ended").read_text() == "True"
    assert not list(tmp_path.glob("*.ckpt"))  # Lightning's own, in the working folder
    assert two_ranks(as_slurm_task, [*arguments, "--ckpt_path", "last"]) == [0, 0]
    assert folder.result.exists()


@pytest.mark.faults
def test_slurms_signal_in_the_test_queues_the_job_again(tmp_path: Path, two_ranks: TwoRanks, scontrol: None) -> None:
    arguments = [
        *COMMON,
        "--runs_dir",
        str(tmp_path / "runs"),
        "--trainer.max_epochs",
        "1",
        "--data.train_per_class",
        "32",
    ]
    task = partial(as_slurm_task, hook="on_test_epoch_start")  # 320 images in batches of 2 x 16: ten steps
    assert two_ranks(task, arguments, 0, 1) == [128 + signal.SIGUSR1] * 2
    assert (tmp_path / "asked").read_text() == "requeue 4321\n"


def test_another_number_of_tasks_than_devices_is_refused(
    tmp_path: Path, two_ranks: TwoRanks, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*COMMON, "--runs_dir", str(tmp_path), "--trainer.devices", "3"]
    assert two_ranks(as_slurm_task, arguments) == [2, 2]
    error = capfd.readouterr().err
    assert "the number of tasks per node configured in SLURM `--ntasks-per-node=2` does not match" in error
    assert "Traceback" not in error


# -- real launchers, which start fresh interpreters ----------------------------------------------------------------


def start(launcher: list[str], *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, *COMMON, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kdlab"]
LAUNCHERS = {"torchrun": TORCHRUN, "Lightning": ["kdlab"]}
all_launchers = pytest.mark.parametrize("launcher", LAUNCHERS)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.2)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.faults
@all_launchers
def test_a_job_is_trained_and_tested(launcher: str, tmp_path: Path) -> None:
    process = start(LAUNCHERS[launcher], "--runs_dir", str(tmp_path))
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output[-3000:]
    assert '"world_size": 2' in (tmp_path / "digits" / "run" / "result.json").read_text()


@pytest.mark.faults
@all_launchers
@pytest.mark.parametrize("victim", ["first", "last"])
def test_when_a_process_is_killed_the_job_ends_and_leaves_no_orphan(launcher: str, victim: str, tmp_path: Path) -> None:
    process = start(LAUNCHERS[launcher], "--runs_dir", str(tmp_path), *FOREVER)
    folder = RunFolder(tmp_path / "digits" / "run")
    wait_for(folder.last)
    ranks = children(process.pid) if launcher == "torchrun" else [process.pid, *children(process.pid)]
    assert len(ranks) == 2
    began = time.monotonic()
    os.kill(ranks[0 if victim == "first" else 1], signal.SIGKILL)
    output, _ = process.communicate(timeout=100)
    assert time.monotonic() - began < 60
    assert process.returncode != 0
    while not all(ended(pid) for pid in ranks):  # what it wrote is read, and the system still takes it down
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    assert "is gone: it was killed, or its machine was" in output
    if launcher == "Lightning" and victim == "last":
        assert process.returncode == LOST
    again = start(LAUNCHERS[launcher], "--runs_dir", str(tmp_path), *FOREVER, "--ckpt_path", "last")
    previous = folder.last.stat().st_mtime_ns
    deadline = time.monotonic() + 180
    while folder.last.stat().st_mtime_ns == previous:
        assert time.monotonic() < deadline, again.poll()
        time.sleep(0.2)
    again.send_signal(signal.SIGTERM)  # torchrun passes it on; under Lightning the first process alone gets it
    output, _ = again.communicate(timeout=100)
    assert "stopped after step" in output
    if launcher == "Lightning":
        assert again.returncode == 143
