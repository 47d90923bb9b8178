"""TensorBoard in the run's folder, or a clear word on what is missing."""

import importlib.util

import pytest

from kdlab.cli import main
from kdlab.run.tensorboard import TensorBoard

INSTALLED = any(importlib.util.find_spec(package) for package in ("tensorboard", "tensorboardX"))
NO_TENSORBOARD = "tensorboard is not installed: pip install 'kdlab[tensorboard]'"
COMMAND = ["fit", "--config", "digits/independent", "--config", "run/tensorboard", "--trainer.max_epochs", "1"]


def test_without_the_package_the_command_ends_with_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("kdlab.run.tensorboard.PACKAGES", ("no_such_package",))
    assert main([*COMMAND, "--runs_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == "kdlab: error: TensorBoard needs the package tensorboard; pip install 'kdlab[tensorboard]'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not INSTALLED, reason=NO_TENSORBOARD)
def test_the_metrics_lie_in_the_run_folder(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--runs_dir", str(tmp_path / "runs")]) == 0
    events = EventAccumulator(str(tmp_path / "runs" / "digits" / "independent-seed0" / "tensorboard")).Reload()
    assert {"train/label_loss", "val/accuracy", "test/accuracy"} <= set(events.Tags()["scalars"])
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.skipif(not INSTALLED, reason=NO_TENSORBOARD)
def test_before_a_run_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = TensorBoard()
    logger.log_metrics({"a": 1.0}, step=1)
    logger.save()
    logger.finalize("success")
    assert not list(tmp_path.iterdir())
