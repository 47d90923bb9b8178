"""The scripts for clusters, run with programs that write down how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "docs" / "examples" / "slurm"


@pytest.fixture
def call(tmp_path: Path):
    """`call(script, ...)`: the arguments that the script starts kdlab with."""
    for name in ("srun", "torchrun"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/{name}.called\n')
        program.chmod(0o755)

    def run(script: str, program: str, *arguments: str) -> list[str]:
        slurm = {"SLURM_JOB_ID": "77", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}
        environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNS": str(tmp_path / "runs")}
        subprocess.run(["bash", "-eu", str(SCRIPTS / script), *arguments], env=environment, check=True)
        return (tmp_path / f"{program}.called").read_text().splitlines()

    return run


@pytest.mark.parametrize("script", ["one_node.sbatch", "two_nodes.sbatch"])
def test_a_job_starts_anew_and_then_continues(script: str, call, tmp_path: Path) -> None:
    first = call(script, "srun")
    assert "--ckpt_path" not in first
    assert first[first.index("--name") + 1] == "slurm-77"
    assert first[first.index("--trainer.devices") + 1] == "4"
    assert first[first.index("--trainer.num_nodes") + 1] == "2"
    last = tmp_path / "runs" / "cifar100" / "slurm-77" / "checkpoints" / "last.ckpt"  # where kdlab writes it
    last.parent.mkdir(parents=True)
    last.touch()
    assert call(script, "srun") == [*first, "--ckpt_path", "last"]


@pytest.mark.parametrize("script", ["one_node.sbatch", "two_nodes.sbatch"])
def test_a_job_asks_for_the_signal_and_may_be_requeued(script: str) -> None:
    lines = (SCRIPTS / script).read_text().splitlines()
    assert "#SBATCH --signal=USR1@120" in lines  # kdlab.run.requeue.REQUEUE_SIGNAL
    assert "#SBATCH --requeue" in lines


def test_torchrun_starts_kdlab_with_the_options_given_and_then_continues(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CONFIG", "configs/digits/mine.yaml")
    first = call("torchrun.sh", "torchrun", "--data.batch_size", "8")
    assert first[first.index("-m") :][:5] == ["-m", "kdlab", "fit", "--config", "configs/digits/mine.yaml"]
    assert first[-2:] == ["--data.batch_size", "8"]
    last = tmp_path / "runs" / "digits" / first[first.index("--name") + 1] / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    assert call("torchrun.sh", "torchrun", "--data.batch_size", "8") == [*first, "--ckpt_path", "last"]
