import csv

import pytest

from kdlab.errors import IntegrityError
from kdlab.run.metrics_csv import MetricsCSV, read_rows


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def opened(path, step=0):
    logger = MetricsCSV()
    logger.open(path, step)
    return logger


def log(logger, *rows):
    """Log (step, metrics) and write, as the end of an epoch does."""
    for step, metrics in rows:
        logger.log_metrics(metrics, step=step)
    logger.save()


@pytest.fixture
def path(tmp_path):
    """Steps 9, 19, 29, three columns of metrics."""
    logger = opened(tmp_path / "metrics.csv")
    log(logger, *[(step, {"train/loss": 1 / (step + 1), "epoch": i}) for i, step in enumerate((9, 19, 29))])
    logger.finalize("success")
    return tmp_path / "metrics.csv"


def test_each_call_is_a_row_with_epoch_and_step_first(path):
    assert path.read_text().splitlines()[0] == "epoch,step,train/loss"
    assert [(row["epoch"], row["step"]) for row in read(path)] == [("0", "9"), ("1", "19"), ("2", "29")]
    assert float(read(path)[1]["train/loss"]) == 1 / 20  # all digits


def test_rows_are_in_the_file_when_they_are_saved_and_not_before(tmp_path):
    logger = opened(tmp_path / "metrics.csv")
    logger.log_metrics({"loss": 1.0}, step=0)
    assert not (tmp_path / "metrics.csv").exists()
    logger.save()
    assert len(read(tmp_path / "metrics.csv")) == 1


def test_nothing_is_written_before_there_is_a_file_and_nothing_is_lost(tmp_path):
    logger = MetricsCSV()
    log(logger, (0, {"teacher/val_accuracy": 0.5}))
    assert not list(tmp_path.iterdir())
    logger.open(tmp_path / "metrics.csv", 0)
    log(logger, (9, {"loss": 1.0}))
    assert [row["step"] for row in read(tmp_path / "metrics.csv")] == ["0", "9"]


def test_a_new_metric_becomes_a_new_column_and_old_rows_stay(path):
    logger = opened(path, 30)
    log(logger, (39, {"train/loss": 0.1, "val/accuracy": 0.5}), (49, {"val/ece": 0.25, "train/loss": 0.2}))
    log(logger, (59, {"train/loss": 0.3}))
    rows = read(path)
    assert path.read_text().splitlines()[0] == "epoch,step,train/loss,val/accuracy,val/ece"
    assert [row["step"] for row in rows] == ["9", "19", "29", "39", "49", "59"]
    assert [row["val/accuracy"] for row in rows] == ["", "", "", "0.5", "", ""]
    assert rows[4]["val/ece"] == "0.25"
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


def test_two_new_metrics_in_two_rows_make_each_column_once(tmp_path):
    logger = opened(tmp_path / "metrics.csv")
    log(logger, (0, {"b": 1, "a": 2}), (1, {"a": 3, "b": 4}))
    assert (tmp_path / "metrics.csv").read_text() == "epoch,step,b,a\n,0,1,2\n,1,4,3\n"


def test_a_resume_keeps_the_rows_before_its_step_and_no_others(path):
    before = read(path)
    opened(path, 19)
    assert read(path) == before[:1]
    log(opened(path, 19), (19, {"train/loss": 7.0}))
    assert [row["step"] for row in read(path)] == ["9", "19"]
    assert read(path)[1]["train/loss"] == "7.0"


@pytest.mark.parametrize("step", [0, 5, 9])
def test_a_resume_from_before_the_first_row_drops_them_all(path, step):
    log(opened(path, step), (9, {"train/loss": 7.0}))
    assert [(row["step"], row["train/loss"]) for row in read(path)] == [("9", "7.0")]


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(tmp_path):
    rows = [(step, {"train/loss": step / 7, "epoch": step // 4}) for step in range(12)]
    rows[5][1]["val/accuracy"] = 0.5
    whole = opened(tmp_path / "whole.csv")
    for row in rows:
        log(whole, row)
    killed = opened(tmp_path / "killed.csv")
    for row in rows[:9]:
        log(killed, row)
    resumed = opened(tmp_path / "killed.csv", 7)  # the last resume point was before two rows
    for row in rows[7:]:
        log(resumed, row)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_line_torn_anywhere_is_skipped_and_no_half_number_is_kept(path):
    content = path.read_bytes()
    whole = read(path)
    last = content.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(last, len(content)):
        path.write_bytes(content[:length])
        opened(path, 1000)
        kept = read(path)
        assert kept[:2] == whole[:2], length
        assert kept[2:] in ([], whole[2:]), content[last:length]


def test_lines_that_are_no_rows_are_skipped(path):
    with path.open("a") as file:
        file.write("\n,,\n2,x,0.5\n2,-5,0.5\nnoise\n")
    log(opened(path, 1000), (39, {"train/loss": 1.0}))
    assert [row["step"] for row in read(path)] == ["9", "19", "29", "39"]


def test_a_line_with_too_many_fields_does_not_stop_a_resume(path):
    with path.open("a") as file:
        file.write("2,292,29,0.5,0.7\n")  # two rows in one, the first one torn
    log(opened(path, 1000), (39, {"train/loss": 1.0}))
    assert {"9", "19", "29", "39"} <= {row["step"] for row in read(path)}


@pytest.mark.parametrize("content", ["", "\n", "epoch,step\n"])
def test_an_empty_file_is_a_new_one(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    log(opened(path, 10), (19, {"loss": 1.0}))
    assert path.read_text().splitlines() == ["epoch,step,loss", ",19,1.0"]


def test_the_end_of_a_run_writes_what_is_left(tmp_path):
    logger = opened(tmp_path / "metrics.csv")
    logger.log_metrics({"test/accuracy": 0.5}, step=100)
    logger.finalize("success")
    assert read(tmp_path / "metrics.csv")[0]["test/accuracy"] == "0.5"


def test_hyperparameters_are_not_its_business(tmp_path):
    opened(tmp_path / "metrics.csv").log_hyperparams({"a": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"step,loss\n1,\xdd\n", b"step,loss\n1,much\n", b"step,loss\n1,\x002\n"])
def test_a_damaged_file_is_named(content, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"metrics\.csv is damaged; put a whole one in its place, or remove it"):
        read_rows(path)
