"""Plans: kept in study.json, and asked which cells a comparison means."""

import json

import pytest

from kdlab.errors import UsageError
from kdlab.studies.plan import Plan, PlannedRun, SearchedVariant, cell_label, cells, compared_cells
from kdlab.studies.published import Published
from kdlab.studies.study import Comparison

GRID = [{"model.alpha": alpha, "model.temperature": temperature} for alpha in (0.0, 1.0) for temperature in (1, 4)]
TRIALS = ({"model.alpha": 0.25}, {"model.alpha": 0.75}, {"model.alpha": 0.25})
SEARCH = SearchedVariant("found", "student.val.accuracy", 6, TRIALS, ("model.alpha",))


def runs(variant, *cells):
    return [
        PlannedRun(f"{variant}{i}-{seed}", "student", variant, values, seed, ("--a", "b"), ("t",))
        for i, values in enumerate(cells)
        for seed in (0, 1)
    ]


PLAN = Plan("s", "Which?", ("student.test.accuracy",), (), tuple(runs("plain", {}) + runs("kd", *GRID)))
SEARCHED = Plan(
    "s", "", ("m",), (Comparison({"variant": "found"}, {"variant": "plain"}),),
    tuple(runs("plain", {}) + runs("found", *TRIALS[:2])), (SEARCH,),
)  # fmt: skip
PUBLISHED = Plan(
    "s", "", ("m",), (Comparison({}, {"variant": "plain"}, ("pair",)),), tuple(runs("plain", {})), (),
    (Published("student", "plain", {}, 0.7, "X", "last", None),),
)  # fmt: skip
BEST = {"found": "found, alpha 0.75"}


@pytest.mark.parametrize("plan", [PLAN, SEARCHED, PUBLISHED])
def test_a_written_plan_is_read_back(tmp_path, plan):
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan


def test_a_plan_of_before_there_were_searches_and_published_numbers_is_read(tmp_path):
    PLAN.write(tmp_path)
    content = json.loads((tmp_path / "study.json").read_text())
    del content["searches"], content["published"]
    (tmp_path / "study.json").write_text(json.dumps(content))
    assert Plan.read(tmp_path) == PLAN


def test_a_folder_without_a_plan_is_no_study(tmp_path):
    with pytest.raises(
        UsageError, match=r"is no folder of a study: it has no readable study.json; give runs/studies/NAME"
    ):
        Plan.read(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UsageError, match="is no folder of a study"):
        Plan.read(tmp_path)


def test_comparisons_choose_cells():
    pairs = compared_cells(PLAN, Comparison({}, {"variant": "plain"}), {})
    assert pairs == [(label, "plain") for label in list(cells(PLAN))[1:]]
    pairs = compared_cells(PLAN, Comparison({"model.temperature": 4}, {"model.alpha": 1.0, "model.temperature": 4}), {})
    assert pairs == [("kd, alpha 0.0, temperature 4", "kd, alpha 1.0, temperature 4")]


@pytest.mark.parametrize(
    ("of", "against", "compared"),
    [
        ({"variant": "found"}, {"variant": "plain"}, ("found, alpha 0.75", "plain")),
        ({}, {"variant": "plain"}, ("found, alpha 0.75", "plain")),
        ({}, {"variant": "found"}, ("plain", "found, alpha 0.75")),
    ],
)
def test_a_searched_variant_takes_part_with_its_best_trial(of, against, compared):
    assert len(cells(SEARCHED)) == 3
    assert compared_cells(SEARCHED, Comparison(of, against), BEST) == [compared]


def test_no_other_trial_of_a_search_can_be_compared():
    with pytest.raises(UsageError, match=r"which is no cell other than plain; name a variant or grid values"):
        compared_cells(SEARCHED, Comparison({"variant": "found", "model.alpha": 0.75}, {"variant": "plain"}), BEST)


def test_keys_that_end_alike_are_told_apart():
    values = {"model.student.width": 1, "model.teacher.network.width": 2, "width": 3, "model.alpha": 4}
    assert cell_label("kd", values) == "kd, student.width 1, network.width 2, width 3, alpha 4"
    two = {"model.a.network.width": 1, "model.b.network.width": 2}
    assert cell_label("kd", two) == "kd, a.network.width 1, b.network.width 2"


def test_what_is_to_come_are_the_other_trials_with_all_seeds():
    assert (PLAN.to_come, SEARCHED.to_come) == (0, (6 - 3) * 2)
