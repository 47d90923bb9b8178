"""Lines and estimates of a study that goes on."""

import json
from datetime import timedelta

import pytest

from kdlab.studies.executor import Ended
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.progress import StudyProgress, estimate, measured_seconds

RUNS = (
    PlannedRun("t", "teacher", "wide", {}, 0, (), ()),
    *(PlannedRun(f"s{seed}", "student", "kd", {"model.alpha": 0.5}, seed, (), ("t",)) for seed in range(4)),
)
PLAN = Plan("s", "", ("student.test.accuracy",), (), RUNS)


@pytest.fixture
def study(tmp_path):
    for number, run in enumerate(RUNS[:3]):
        (tmp_path / run.id).mkdir()
        result = {"student": {"test": {"accuracy": 0.9}}, "train_seconds": 10.0 * number}
        (tmp_path / run.id / "result.json").write_text(json.dumps(result))
    return tmp_path


@pytest.mark.parametrize(("runs", "jobs", "seconds"), [(10, 1, 100), (10, 2, 50), (11, 2, 60), (0, 2, 0)])
def test_an_estimate_counts_rounds(runs, jobs, seconds):
    assert estimate(10.0, runs, jobs) == timedelta(seconds=seconds)


def test_the_time_of_finished_students_is_known(study, tmp_path_factory):
    assert measured_seconds(PLAN, study) == 15.0  # 10 and 20; the teacher does not count
    assert measured_seconds(PLAN, tmp_path_factory.mktemp("empty")) is None


def test_each_run_has_its_line(study, capsys):
    with StudyProgress(PLAN, study, total=5, jobs=1) as progress:
        progress.report(Ended(RUNS[0], "done", 100.0))
        progress.report(Ended(RUNS[1], "done", 4.0))
        progress.report(Ended(RUNS[2], "done"))
        progress.report(Ended(RUNS[3], "failed", 1.0, "exit code 5: nan"))
        progress.report(Ended(RUNS[4], "stopped", 1.0))
        progress.tick()
    assert capsys.readouterr().err.splitlines() == [
        "[1/5] wide, seed 0: student.test.accuracy 0.9000 (100 s)",
        "[2/5] kd, alpha 0.5, seed 0: student.test.accuracy 0.9000 (4 s, about 0:00:12 left)",
        "[4/5] kd, alpha 0.5, seed 2: failed: exit code 5: nan",
        "[5/5] kd, alpha 0.5, seed 3: stopped",
        "1 of 5 runs were done already",
    ]


def test_a_small_number_keeps_its_digits(study, capsys):
    result = {"student": {"test": {"accuracy": 0.00001234}}, "train_seconds": 4.0}
    (study / RUNS[1].id / "result.json").write_text(json.dumps(result))
    with StudyProgress(PLAN, study, total=1, jobs=1) as progress:
        progress.report(Ended(RUNS[1], "done", 4.0))
    assert "student.test.accuracy 0.00001234 (4 s)" in capsys.readouterr().err


def test_a_round_of_a_search_may_have_fewer_runs_than_expected(study, capsys):
    with StudyProgress(PLAN, study, total=9, jobs=1) as progress:
        progress.report(Ended(RUNS[1], "done", 4.0))
        progress.expect(3)
        progress.report(Ended(RUNS[2], "done", 4.0))
    assert capsys.readouterr().err.splitlines() == [
        "[1/9] kd, alpha 0.5, seed 0: student.test.accuracy 0.9000 (4 s, about 0:00:32 left)",
        "[2/3] kd, alpha 0.5, seed 1: student.test.accuracy 0.9000 (4 s, about 0:00:04 left)",
    ]
