import logging
import sys

import pytest

from kdlab.run.progress import EpochLines, progress_bar


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "kdlab")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "kdlab.run.progress"]


def train(epoch, loss=0.5):
    return {"train/loss": loss, "train/accuracy": 0.75, "epoch": epoch}


def test_an_epoch_is_one_line_with_training_and_validation(lines):
    logger = EpochLines(max_epochs=2)
    logger.log_metrics({"val/accuracy": 0.875, "val/nll": 0.25, "epoch": 0}, step=8)
    assert lines() == []
    logger.log_metrics(train(0), step=8)
    (line,) = lines()
    assert line.startswith("epoch 1/2  loss 0.5000  train accuracy 0.7500  val accuracy 0.8750  nll 0.2500")
    assert line.endswith("0:00:00 left")


def test_the_last_epoch_has_no_time_left(lines):
    EpochLines(max_epochs=2).log_metrics(train(1), step=17)
    assert "left" not in lines()[0]


def test_without_a_number_of_epochs_there_is_no_end_in_sight(lines):
    EpochLines(max_epochs=None).log_metrics(train(3), step=17)
    assert lines() == ["epoch 4/?  loss 0.5000  train accuracy 0.7500"]


def test_the_values_of_single_steps_and_of_the_teacher_are_no_lines(lines):
    logger = EpochLines(max_epochs=2)
    logger.log_metrics({"train/loss_step": 0.5, "epoch": 0}, step=0)
    logger.log_metrics({"teacher/val_accuracy": 0.5}, step=0)
    logger.log_hyperparams({"a": 1})
    assert lines() == []


def test_the_time_left_goes_by_the_epochs_that_this_process_has_seen(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("kdlab.run.progress.time.monotonic", lambda: now[0])
    logger = EpochLines(max_epochs=20)  # resumed after ten
    for epoch in (10, 11):
        now[0] += 60
        logger.log_metrics(train(epoch), step=0)
    assert [line.rsplit("  ", 1)[1] for line in lines()] == ["0:09:00 left", "0:08:00 left"]


def test_there_is_no_bar_where_nobody_watches(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert progress_bar() == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert len(progress_bar()) == 1
