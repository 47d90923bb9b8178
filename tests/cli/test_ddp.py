"""Two processes on the CPU say the same as one: same test metrics of the same weights, on a split that does not divide."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdlab.data import Digits
from kdlab.run.folder import RunFolder

# 360 test images are three global batches of 2 x 47 and 78 more
UNEVEN = ["--data.eval_batch_size", "47"]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kdlab", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_two_processes_train_one_run_and_test_like_one(tmp_path: Path, digits_teacher: Path) -> None:
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
    done = run([*arguments, "--trainer.max_epochs", "2", "--data.batch_size", "32"])
    assert done.returncode == 0, done.stderr[-3000:]
    folders = sorted((tmp_path / "digits").iterdir())
    assert [folder.name for folder in folders] == ["logit_matching-seed0"]
    result = json.loads((folders[0] / "result.json").read_text())
    assert result["world_size"] == 2
    assert result["protocol"]["n_tested"] == 360

    alone = ["--trainer.strategy", "auto", "--trainer.devices", "1"]
    shown = run(["test", "--config", str(RunFolder(folders[0]).config), *alone])
    assert shown.returncode == 0, shown.stderr[-3000:]
    test = result["student"]["test"]
    row = next(line for line in shown.stdout.splitlines() if line.startswith("│ student"))
    for cell in (
        f"{100 * test['accuracy']:.2f}",
        f"{100 * test['top5']:.2f}",
        f"{test['nll']:.4f}",
        f"{test['ece']:.4f}",
    ):
        assert cell in row
    teacher = next(line for line in shown.stdout.splitlines() if line.startswith("│ teacher"))
    assert f"{result['teacher']['test']['nll']:.4f}" in teacher


def test_the_test_split_does_not_divide_into_the_batches_of_two_ranks() -> None:
    data = Digits(eval_batch_size=47)
    assert len(data.test_split) % (2 * 47) != 0  # what the test above rests on
    assert torch.unique(data.test_split.labels).numel() == 10


@pytest.mark.slow
def test_two_processes_end_together_when_the_folder_is_in_use(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "digits" / "independent-seed0")
    folder.claim()
    done = run(["fit", "--config", "digits/independent", "--config", "run/ddp", "--runs_dir", str(tmp_path)])
    folder.release()
    assert done.returncode == 3, done.stderr[-3000:]
    assert "belongs to a running process" in done.stderr
