import sys
from pathlib import Path

import pytest
import torch

from kdlab.cli import main


@pytest.fixture(autouse=True)
def quiet_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI warns when it is given arguments while the process has some of its own."""
    monkeypatch.setattr(sys, "argv", ["kdlab"])
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained teacher of the digits: 3 epochs, about 97%."""
    runs = tmp_path_factory.mktemp("teacher")
    before, sys.argv = sys.argv, ["kdlab"]
    code = main(
        ["fit", "--config", "digits/teacher", "--runs_dir", str(runs), "--name", "t", "--trainer.max_epochs", "3"]
    )
    sys.argv = before
    assert code == 0
    return runs / "digits" / "t" / "student.safetensors"
