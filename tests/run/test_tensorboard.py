"""TensorBoard in the run's folder, or a clear word on what is missing."""

import importlib.util
import sys

import pytest

from kdlab.cli import main
from kdlab.run.tensorboard import TensorBoard
from kdlab.run.tracker import NoExperiment

INSTALLED = importlib.util.find_spec("tensorboard") is not None
if INSTALLED:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
NO_TENSORBOARD = "tensorboard is not installed: pip install 'kdlab[tensorboard]'"
COMMAND = ["fit", "--config", "digits/independent", "--config", "run/tensorboard", "--trainer.max_epochs", "1"]


def test_without_the_package_the_command_ends_with_one_line(monkeypatch, tmp_path, capsys):
    for package in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main([*COMMAND, "--runs_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == "kdlab: error: TensorBoard needs the package tensorboard; pip install 'kdlab[tensorboard]'\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not INSTALLED, reason=NO_TENSORBOARD)
def test_the_metrics_lie_in_the_run_folder(tmp_path, monkeypatch):
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
    logger.log_hyperparams({"width": 8})
    logger.save()
    logger.finalize("success")
    assert not list(tmp_path.iterdir())


def followed(folder, step, values):
    """One process of a run, which logs a value in each step from `step` on."""
    logger = TensorBoard()
    logger.begin(folder, step)
    for number, value in enumerate(values, 9 if step is None else step):
        logger.log_metrics({"analysis/loss" if step is None else "train/loss": value}, step=number)
    logger.close()
    return EventAccumulator(str(folder.path / "tensorboard")).Reload()


@pytest.mark.skipif(not INSTALLED, reason=NO_TENSORBOARD)
def test_a_resumed_run_hides_what_came_after_its_resume_point(folder):
    followed(folder, 0, [0.0, 1.0, 2.0, 3.0])
    folder.result.touch()  # as where a run that was tested is tested again
    again = followed(folder, 2, [20.0, 30.0])
    assert [(event.step, event.value) for event in again.Scalars("train/loss")] == [(0, 0), (1, 1), (2, 20), (3, 30)]


@pytest.mark.skipif(not INSTALLED, reason=NO_TENSORBOARD)
def test_what_is_found_out_after_the_end_hides_nothing(folder):
    followed(folder, 0, [0.0, 1.0])
    found = followed(folder, None, [5.0])
    assert len(found.Scalars("train/loss")) == 2
    assert [event.value for event in found.Scalars("analysis/loss")] == [5.0]


@pytest.mark.skipif(not INSTALLED, reason=NO_TENSORBOARD)
def test_a_file_that_cannot_be_closed_is_written_no_more(folder, monkeypatch):
    logger = TensorBoard()
    logger.begin(folder, 0)
    logger.log_metrics({"a": 1.0}, step=1)
    writer = logger.experiment
    with monkeypatch.context() as patch:
        patch.setattr(writer, "close", lambda: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            logger.close()
    assert isinstance(logger.experiment, NoExperiment)
    writer.close()
