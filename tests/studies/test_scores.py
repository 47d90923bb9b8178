"""What trials have reached, read from run folders that were made up."""

import json

import pytest

from kdlab.errors import UsageError
from kdlab.studies.ledger import Entry
from kdlab.studies.plan import PlannedRun
from kdlab.studies.scores import LedgerScore

RUNS = [PlannedRun(f"a{seed}", "student", "kd", {}, seed, (), ()) for seed in (0, 1)]
KEY = "student.val.accuracy"


def finish(study, run, accuracy):
    folder = study / run.id
    folder.mkdir(exist_ok=True)
    student = {"test": {"accuracy": 0.1}, "val": {"accuracy": accuracy}}
    (folder / "result.json").write_text(json.dumps({"student": student}))


def test_a_trial_is_open_until_all_its_seeds_have_ended(tmp_path):
    study = tmp_path / "s"
    assert LedgerScore(study)(RUNS, KEY) == "open"
    assert not study.exists()  # a dry run leaves nothing
    study.mkdir()
    finish(study, RUNS[0], 0.75)
    assert LedgerScore(study)(RUNS, KEY) == "open"
    finish(study, RUNS[1], 0.85)
    assert LedgerScore(study)(RUNS, KEY) == pytest.approx(0.8)


def test_a_failed_seed_fails_the_trial_when_the_others_have_ended(tmp_path):
    Entry(tmp_path, "a0").fail(5)
    assert LedgerScore(tmp_path)(RUNS, KEY) == "open"
    finish(tmp_path, RUNS[1], 0.85)
    assert LedgerScore(tmp_path)(RUNS, KEY) == "failed"
    again = LedgerScore(tmp_path, retry_failed=True)
    assert again(RUNS, KEY) == "open"
    again.tried = {"a0"}
    assert again(RUNS, KEY) == "failed"
    with Entry(tmp_path, "a0").claim():  # somebody else runs it again
        assert LedgerScore(tmp_path)(RUNS, KEY) == "open"


@pytest.mark.parametrize("value", [None, "high", True, float("nan")])
def test_what_is_no_number_is_told(tmp_path, value):
    for run in RUNS:
        finish(tmp_path, run, value)
    with pytest.raises(
        UsageError,
        match=r"^the search of kd maximizes student.val.accuracy, but that is no number in .*a0/result.json; name anot",
    ):
        LedgerScore(tmp_path)(RUNS, KEY)
