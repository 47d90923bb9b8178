"""The section `search` of a study file: what it means, and what is refused with the key that is wrong."""

import pytest
import yaml

from kdlab.errors import UsageError
from kdlab.studies.file import read_study
from kdlab.studies.search import Range, Search, read_search

WHOLE = {
    "trials": 24,
    "rounds_of": 8,
    "maximize": "student.val.accuracy",
    "ranges": {
        "model.alpha": {"low": 0.0, "high": 1.0},
        "model.temperature": {"low": 1, "high": 16, "log": True},
        "model.logit_loss": ["SoftTargets", "DecoupledKD", "DIST"],
    },
}


def test_a_section_says_what_it_says():
    search = read_search(WHOLE, "search")
    assert search == Search(
        24, 8, "student.val.accuracy",
        {"model.alpha": Range(0.0, 1.0), "model.temperature": Range(1, 16, log=True),
         "model.logit_loss": ("SoftTargets", "DecoupledKD", "DIST")},
    )  # fmt: skip
    assert [found.whole for found in search.ranges.values() if isinstance(found, Range)] == [False, True]
    assert not Range(1, 16.0).whole
    assert search.logarithmic == ("model.temperature",)


def test_little_need_be_said():
    search = read_search({"trials": 3, "ranges": {"model.alpha": [0, 1]}}, "search")
    assert (search.rounds_of, search.maximize) == (4, "student.val.accuracy")


def test_the_corners_have_all_ends_and_choices():
    corners = list(read_search(WHOLE, "search").corners())
    assert len(corners) == 3
    assert {corner["model.alpha"] for corner in corners} == {0.0, 1.0}
    assert {corner["model.temperature"] for corner in corners} == {1, 16}
    assert {corner["model.logit_loss"] for corner in corners} == {"SoftTargets", "DecoupledKD", "DIST"}


def alpha(**found):
    return {"ranges": {"model.alpha": found}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruner": "median"}, "search has no key pruner; there are: trials, rounds_of, maximize, ranges"),
        ({"trials": 0}, "search.trials is 0, but expected is a whole number of 1 or more"),
        ({"trials": None}, "search.trials is None, but expected is a whole number of 1 or more"),
        ({"rounds_of": 2.5}, "search.rounds_of is 2.5, but expected is a whole number of 1 or more"),
        ({"rounds_of": True}, "search.rounds_of is True, but expected is a whole number of 1 or more"),
        ({"ranges": {}}, "search has no ranges; give some: model.alpha: {low: 0.0, high: 1.0}"),
        ({"ranges": {"model.alpha": 0.5}}, "search.ranges.model.alpha is 0.5, but expected is a range, {low: 0.0, high: 1.0}, or a list"),
        ({"ranges": {"model.alpha": [1, 1]}}, "search.ranges.model.alpha has the value 1 twice; give it once"),
        ({"ranges": {"model.alpha": [[1]]}}, "but expected are numbers and words"),
        (alpha(low=0, high=1, step=0.1), "search.ranges.model.alpha has no key step; there are: low, high, log"),
        (alpha(low=0), "search.ranges.model.alpha.high is None, but expected is a number"),
        (alpha(low="1e-4", high=1), "search.ranges.model.alpha.low is 1e-4, but expected is a number, with a point before an exponent: 1.0e-4"),
        (alpha(low=0, high=float("inf")), "search.ranges.model.alpha.high is inf, but expected is a number"),
        (alpha(low=False, high=1), "search.ranges.model.alpha.low is False, but expected is a number"),
        (alpha(low=2, high=1), "search.ranges.model.alpha goes from 2 to 1; low must be below high"),
        (alpha(low=1, high=1), "search.ranges.model.alpha goes from 1 to 1; low must be below high"),
        (alpha(low=0, high=1, log=True), "search.ranges.model.alpha.low is 0, but a logarithmic scale has positive numbers only"),
        (alpha(low=1, high=2, log="yes"), "search.ranges.model.alpha.log is yes, but expected is true or false"),
        ({"maximize": 3}, "search.maximize is 3, but expected is a key of result.json: student.val.accuracy"),
        *(
            ({"maximize": key}, f"search.maximize is {key}, which is measured on the test images: the best of many trials would be chosen by the very images that are to judge it; maximize student.val.accuracy")
            for key in ("student.test.accuracy", "student.test", "student", "student.per_class.f1", "teacher.test.accuracy")
        ),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_key(changes, message):
    with pytest.raises(UsageError) as caught:
        read_search({**WHOLE, **changes}, "search")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["student.val.accuracy", "student.noise.corrected_rate", "train_images_per_s"])
def test_what_no_test_image_decides_may_be_maximized(key):
    assert read_search({**WHOLE, "maximize": key}, "search").maximize == key


def study(folder, quick=None, **variant):
    path = folder / "s.yaml"
    content = {"variants": {"kd": {"base": "digits/logit_matching", **variant}}, "quick": quick}
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_variant_has_a_grid_or_a_search(tmp_path):
    assert read_study(study(tmp_path, search=WHOLE)).variants[0].search == read_search(WHOLE, "search")
    path = study(tmp_path, search=WHOLE, grid={"model.alpha": [1]})
    with pytest.raises(UsageError, match=r"^variants.kd has both grid and search; put the grid's keys into search.ran"):
        read_study(path)


@pytest.mark.parametrize(
    ("quick", "search", "trials"),
    [
        ({"seeds": [0]}, WHOLE, 8),  # one round
        ({"trials": 20}, WHOLE, 20),
        ({"seeds": [0]}, {**WHOLE, "trials": 3}, 3),
    ],
)
def test_quick_has_one_round_or_what_it_says(tmp_path, quick, search, trials):
    found = read_study(study(tmp_path, quick, search=search), quick=True).variants[0].search
    assert found == read_search({**search, "trials": trials}, "search")


@pytest.mark.parametrize(
    ("quick", "message"),
    [({"trials": 3}, "quick.trials: no variant has a search; remove it"), ({"trials": 0}, "quick.trials is 0, but")],
)
def test_mistakes_of_quick(tmp_path, quick, message):
    with pytest.raises(UsageError, match=rf"^{message}"):
        read_study(study(tmp_path, quick), quick=True)
