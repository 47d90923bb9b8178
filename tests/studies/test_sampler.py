"""What a search tries next depends on the seed and on the trials before, and on nothing else."""

import statistics
import sys

import pytest

from kdlab.errors import UsageError
from kdlab.studies.sampler import Trial, suggest
from kdlab.studies.search import Range, Search

RANGES = {"alpha": Range(0.0, 1.0), "t": Range(1.0, 16.0, log=True), "n": Range(2, 5), "loss": ("KL", "DKD", None)}


def search(trials=24, rounds_of=4, **ranges):
    return Search(trials, rounds_of, "student.val.accuracy", ranges or RANGES)


def run(what, score, seed=0):
    """The trials of a whole search, round by round."""
    tried = []
    while len(tried) < what.trials:
        tried += [Trial(values, score(values)) for values in suggest(what, seed, tried)]
    return tried


@pytest.fixture(autouse=True)
def _optuna(request):
    if "without_optuna" not in request.fixturenames:
        pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'kdlab[search]'")


def hill(values):
    """Highest, 1, at alpha 0.3; every alpha above 0.9 fails."""
    return None if values["alpha"] > 0.9 else 1 - (values["alpha"] - 0.3) ** 2


def test_suggestions_lie_in_their_ranges_and_are_readable():
    for values in (trial.values for trial in run(search(), hill)):
        assert list(values) == list(RANGES)
        assert 0 <= values["alpha"] <= 1
        assert 1 <= values["t"] <= 16
        assert values["n"] in range(2, 6)
        assert type(values["n"]) is int
        assert values["loss"] in RANGES["loss"]
        assert all(values[key] == float(f"{values[key]:.4g}") for key in ("alpha", "t"))


@pytest.mark.parametrize("log", [False, True])
def test_rounding_does_not_leave_the_range_nor_narrow_it(log):
    found = {values["alpha"] for values in suggest(search(64, 64, alpha=Range(0.99991, 0.99994, log)), 0, [])}
    assert len(found) > 50
    assert all(0.99991 <= value <= 0.99994 for value in found)


def test_the_same_trials_lead_to_the_same_suggestions():
    whole = run(search(), hill)
    assert run(search(), hill) == whole
    for done in (0, 4, 8, 20):
        assert suggest(search(), 0, whole[:done]) == [trial.values for trial in whole[done : done + 4]]
    assert run(search(), hill, seed=1) != whole


def test_no_two_rounds_are_the_same():
    tried = run(search(alpha=Range(0.0, 1.0)), lambda values: None)  # all fail, so all rounds are random
    assert len({trial.values["alpha"] for trial in tried}) == 24


def test_more_trials_continue_the_same_search():
    assert run(search(30), hill)[:22] == run(search(22), hill)


def test_the_last_round_may_be_shorter():
    assert len(suggest(search(trials=6), 0, run(search(trials=4), hill))) == 2


def test_later_rounds_learn_from_those_before():
    what = search(alpha=Range(0.0, 1.0))
    late = [
        trial.values["alpha"] for seed in range(5) for trial in run(what, lambda values: values["alpha"], seed)[12:]
    ]
    assert statistics.fmean(late) > 0.65  # 60 uniform numbers have a mean of 0.5, give or take 0.04


def test_other_results_lead_elsewhere():
    first = run(search(trials=4), hill)
    opposite = [Trial(trial.values, trial.score and -trial.score) for trial in first]
    assert suggest(search(), 0, first) != suggest(search(), 0, opposite)


@pytest.fixture
def without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)


def test_without_optuna_it_is_said_how_to_get_it(without_optuna):
    with pytest.raises(
        UsageError, match=r"^a study with a search needs the package optuna; pip install 'kdlab\[search\]'$"
    ):
        suggest(search(), 0, [])
