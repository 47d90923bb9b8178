"""Two processes on the CPU say the same as one: same test metrics of the same weights, on a split that does not divide."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdlab.cli import main
from kdlab.data import Digits
from kdlab.run.folder import RunFolder

# 360 test images are three global batches of 2 x 47 and 78 more
UNEVEN = ["--data.eval_batch_size", "47"]


@pytest.mark.slow
def test_two_processes_train_one_run_and_test_like_one(
    tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "fit",
        "--config",
        "digits/logit_matching",
        "--config",
        "run/ddp",
        "--runs_dir",
        str(tmp_path),
        *UNEVEN,
    ]
    arguments += ["--model.teacher.checkpoint", str(digits_teacher), "--model.teacher.recipe", "null"]
    # as users start it: the Trainer launches the second process itself
    command = [sys.executable, "-m", "kdlab", *arguments, "--trainer.max_epochs", "1", "--data.batch_size", "64"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    folders = sorted((tmp_path / "digits").iterdir())
    assert [folder.name for folder in folders] == ["logit_matching-seed0"]
    result = json.loads((folders[0] / "result.json").read_text())
    assert result["world_size"] == 2
    assert result["protocol"]["n_tested"] == 360

    alone = ["--trainer.strategy", "auto", "--trainer.devices", "1"]
    assert main(["test", "--config", str(RunFolder(folders[0]).config), *alone]) == 0
    shown = capsys.readouterr().out.splitlines()
    test = result["student"]["test"]
    row = next(line for line in shown if line.startswith("│ student"))
    for cell in (
        f"{100 * test['accuracy']:.2f}",
        f"{100 * test['top5']:.2f}",
        f"{test['nll']:.4f}",
        f"{test['ece']:.4f}",
    ):
        assert cell in row
    teacher = next(line for line in shown if line.startswith("│ teacher"))
    assert f"{result['teacher']['test']['nll']:.4f}" in teacher


def test_the_test_split_does_not_divide_into_the_batches_of_two_ranks() -> None:
    data = Digits(eval_batch_size=47)
    assert len(data.test_split) % (2 * 47) != 0  # what the test above rests on
    assert torch.unique(data.test_split.labels).numel() == 10


def test_two_processes_end_together_when_the_folder_is_in_use(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], two_ranks: Callable[..., list[int | None]]
) -> None:
    folder = RunFolder(tmp_path / "digits" / "independent-seed0")
    folder.claim()
    arguments = ["fit", "--config", "digits/independent", "--config", "run/ddp", "--runs_dir", str(tmp_path)]
    assert two_ranks(main, arguments) == [3, 3]
    folder.release()
    assert "belongs to a running process" in capfd.readouterr().err


def other_batches(arguments: list[str]) -> int:
    """Each process with a batch size of its own, as when a launcher starts another command on each node."""
    return main([*arguments, "--data.batch_size", "32" if os.environ["LOCAL_RANK"] == "0" else "16"])


def test_processes_with_different_configs_end_instead_of_waiting_for_each_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], two_ranks: Callable[..., list[int | None]]
) -> None:
    arguments = ["fit", "--config", "digits/independent", "--config", "run/ddp", "--runs_dir", str(tmp_path / "runs")]
    assert two_ranks(other_batches, arguments) == [2, 2]
    said = capfd.readouterr().err
    assert "process 1 of 2 (counted from 0) was started with another config than the first: " in said
    assert "data.batch_size was 32, is 16; start all with the same command" in said
    assert not (tmp_path / "runs").exists()
