import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def quiet_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI warns when it is given arguments while the process has some of its own."""
    monkeypatch.setattr(sys, "argv", ["kdlab"])
    torch.set_num_threads(1)  # other threads do not survive a fork
