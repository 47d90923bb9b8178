"""Study files: what they mean, and what is refused with the key that is wrong."""

from pathlib import Path

import pytest
import yaml

from kdlab.errors import UsageError
from kdlab.studies.file import read_study
from kdlab.studies.findings import Findings
from kdlab.studies.results import read_results
from kdlab.studies.sections import TAKEN
from kdlab.studies.study import Comparison, StudyTeacher, Variant
from kdlab.studies.tidy import tidy

WHOLE = {
    "name": "s",
    "question": "Which?",
    "seeds": [3, 1],
    "set": {"data.val_fraction": 0},
    "teachers": {"wide": {"base": "digits/teacher", "seed": 7}},
    "variants": {
        "plain": {"base": "digits/independent"},
        "kd": {
            "base": ["digits/logit_matching", "run/smoke"],
            "set": {"model.teacher.checkpoint": "@wide"},
            "grid": {"model.alpha": [0, 0.5, 1], "model.temperature": [1, 4]},
        },
    },
    "comparisons": [{"of": "kd", "against": "plain"}, {"against": {"variant": "kd", "model.alpha": 1}}],
    "metrics": ["student.test.nll"],
    "quick": {"seeds": [0], "set": {"trainer.max_epochs": 1}, "grid": {"model.alpha": [0]}},
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({**WHOLE, **changes}, sort_keys=False))
    return path


def axis(grid: object) -> dict[str, object]:
    return {"variants": {"a": {"base": "x", "grid": grid}}}


def test_a_file_says_what_it_says(tmp_path):
    study = read_study(write(tmp_path))
    assert study.name == "s"
    assert study.seeds == (3, 1)
    assert study.settings == {"data.val_fraction": 0}
    assert study.teachers == (StudyTeacher("wide", ("digits/teacher",), {}, 7),)
    plain, kd = study.variants
    assert plain == Variant("plain", ("digits/independent",))
    assert kd.base == ("digits/logit_matching", "run/smoke")
    assert kd.grid == {"model.alpha": (0, 0.5, 1), "model.temperature": (1, 4)}
    assert study.comparisons == (
        Comparison({"variant": "kd"}, {"variant": "plain"}),
        Comparison({}, {"variant": "kd", "model.alpha": 1}),
    )
    assert study.metrics == ("student.test.nll",)


def test_quick_changes_seeds_settings_and_grid(tmp_path):
    study = read_study(write(tmp_path), quick=True)
    assert study.name == "s-quick"
    assert study.seeds == (0,)
    assert study.teachers[0].settings == {"trainer.max_epochs": 1}
    assert study.variants[1].settings == {"model.teacher.checkpoint": "@wide", "trainer.max_epochs": 1}
    assert study.variants[1].grid == {"model.alpha": (0,), "model.temperature": (1, 4)}


def test_little_need_be_said(tmp_path):
    path = tmp_path / "little.yaml"
    path.write_text("variants: {plain: {base: digits/independent}}")
    study = read_study(path)
    assert (study.name, study.seeds, study.metrics) == ("little", (0, 1, 2, 3, 4), ("student.test.accuracy",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": {}}, "has no key variant; there are: name, question, seeds, set, teachers, variants"),
        ({"variants": {}}, "has no variants; give at least one: a name with `base`, a config"),
        ({"variants": {"a": {"bas": "x"}}}, "variants.a has no key bas; there are: base, set, grid, search"),
        ({"variants": {"a": {"set": {}}}}, "variants.a.base is None; give a config, or a list of configs"),
        ({"variants": {"a b": {"base": "x"}}}, "variants.a b: a b is no name; use letters, digits"),
        ({"variants": {"a": {"base": "x", "grid": {"k": []}}}}, "variants.a.grid.k is [], but expected is a list"),
        ({"variants": {"a": {"base": "x", "grid": {"k": 3}}}}, "variants.a.grid.k is 3, but expected is a list"),
        ({"variants": {"a": {"base": "x", "grid": {"k": [0, 0.0]}}}}, "variants.a.grid.k has the value 0.0 twice"),
        (
            {"variants": {"a": {"base": "x", "grid": {"k": [[1]]}}}},
            "has the value [1], but expected are numbers and words; in a grid, give other values a name: ",
        ),
        ({"variants": ["a"]}, "variants is ['a'], but expected are keys with values"),
        ({"seeds": [0, 0]}, "seeds is [0, 0], with a seed twice; the same run twice is no second sample"),
        ({"seeds": [-1]}, "seeds has the value -1; a seed is a whole number of 0 or more, below 2^32"),
        ({"seeds": [True]}, "seeds has the value True; a seed is a whole number"),
        ({"seeds": 5}, "seeds is 5, but expected is a list with at least one value: [0, 1]"),
        ({"teachers": {"t": {"base": "x", "seed": "one"}}}, "teachers.t.seed has the value 'one'; a seed is"),
        ({"comparisons": [{"of": "kd"}]}, "comparisons[0] has no `against`; name the variant"),
        ({"comparisons": [{"against": "kd", "with": 1}]}, "comparisons[0] has no key with; there are: of, against"),
        ({"name": "a/b"}, "name: a/b is no name; use letters"),
        (
            {"comparisons": [{"against": "kd", "by": 3}]},
            "comparisons[0].by is 3; name the grid keys that both sides share",
        ),
        (axis({"pair": {}}), "variants.a.grid.pair has no value; give each one a name: {NAME: {KEY: VALUE}}"),
        (axis({"pair": {"x": 3}}), "variants.a.grid.pair.x is 3, but expected are keys with values"),
        (axis({"pair": {"x y": {}}}), "variants.a.grid.pair: x y is no name"),
        (
            axis({"model.student": {"x": {}}}),
            "variants.a.grid.model.student: values with names belong to an axis with a name",
        ),
        (axis({"seed": {"x": {}}}), "variants.a.grid.seed: values with names belong to an axis with a name of its own"),
        (
            axis({"pair": {"x": {"k": 1}}, "k": [1]}),
            "variants.a.grid has k twice, as an axis and within pair; leave one",
        ),
        ({"published": {"sources": [{}]}}, "published.sources[0] has no source; say where"),
        ({"comparisons": 3}, "comparisons is 3, but expected is a list"),
        (
            {
                "variants": {"kd": {"base": "x", "search": {"trials": 2, "ranges": {"model.alpha": [0, 1]}}}},
                "published": {"sources": [{"source": "X", "epoch": "last", "percent": {"kd": 70}}]},
            },
            "published: variant kd has a search, so no cell is known to belong to the number; give it a grid",
        ),
        ({"published": "numbers.yaml"}, "published: there is no file"),
    ],
)
def test_mistakes_are_told_with_their_key(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        read_study(write(tmp_path, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quick_leaves_out_comparisons_with_grid_values_that_it_lacks(tmp_path):
    comparisons = [{"of": {"variant": "kd", "model.alpha": 0}, "against": "plain"},
                   {"of": {"variant": "kd", "model.alpha": 0.5}, "against": "plain"},
                   {"of": "plain", "against": {"variant": "kd", "model.alpha": 1, "model.temperature": 1}},
                   {"of": {"variant": "kd", "model.alpha": 7}, "against": "plain"}]  # fmt: skip
    study = read_study(write(tmp_path, comparisons=comparisons), quick=True)
    assert [one.of.get("model.alpha") for one in study.comparisons] == [0, 7]  # a mistake stays, to be told


@pytest.mark.parametrize(
    ("quick", "message"),
    [
        (None, "has no section quick, so it cannot be run with --quick; add one, or leave it out"),
        ({"grid": {"model.beta": [1]}}, "quick.grid.model.beta: no variant has model.beta in its grid"),
        ({"epochs": 1}, "quick has no key epochs; there are: seeds, set, grid, trials"),
        (
            {"set": {"model.alpha": 1}},
            "quick.set.model.alpha: variant kd gives model.alpha values of its own, which would win; remove it",
        ),
    ],
)
def test_mistakes_of_quick(tmp_path, quick, message):
    with pytest.raises(UsageError, match=r".") as caught:
        read_study(write(tmp_path, quick=quick), quick=True)
    assert message in str(caught.value)


PAIRS = {"a-b": {"model.student": "B", "model.teacher": "@a"}, "c-d": {"model.student": "D", "model.teacher": "@c"}}
PAIRED = {
    "teachers": {name: {"base": "digits/teacher"} for name in ("a", "first", "c")}
    | {"c": {"base": "digits/teacher", "set": {"model.teacher.checkpoint": "@first"}}},
    "variants": {
        "plain": {"base": "digits/independent", "grid": {"pair": {"a-b": {}, "c-d": {"model.student": "D"}}}},
        "kd": {
            "base": "digits/logit_matching",
            "set": {"model.alpha": 0},
            "grid": {"pair": PAIRS, "model.alpha": [0, 1]},
        },
        "one": {"base": "digits/logit_matching", "grid": {"pair": {"a-b": PAIRS["a-b"]}}},
    },
    "comparisons": [{"against": "plain", "by": "pair"}, {"against": "plain", "by": ["pair", "model.alpha"]}],
    "published": {
        "columns": {"pair": ["a-b", "c-d"]},
        "sources": [
            {"source": "X", "epoch": "last", "percent": {"plain": [60, 70]}, "teachers_percent": {"a": 75, "c": 80}}
        ],
    },
    "quick": {"seeds": [0], "grid": {"pair": ["a-b"]}},
}


def test_values_of_an_axis_may_be_names_of_settings(tmp_path):
    study = read_study(write(tmp_path, **PAIRED))
    _, kd, _ = study.variants
    assert kd.grid == {"pair": ("a-b", "c-d"), "model.alpha": (0, 1)}
    assert kd.settings_at({"pair": "c-d", "model.alpha": 1}) == {**PAIRS["c-d"], "model.alpha": 1}
    assert [comparison.by for comparison in study.comparisons] == [("pair",), ("pair", "model.alpha")]


def test_quick_chooses_values_by_name_and_leaves_out_what_is_for_the_others(tmp_path):
    whole, small = (read_study(write(tmp_path, **PAIRED), quick) for quick in (False, True))
    assert [teacher.name for teacher in whole.teachers] == ["a", "first", "c"]
    assert [teacher.name for teacher in small.teachers] == ["a"]  # nor the teacher of a teacher
    assert [variant.grid["pair"] for variant in small.variants] == [("a-b",)] * 3
    assert [(one.variant, one.values.get("pair")) for one in whole.published] == [
        ("a", None), ("c", None), ("plain", "a-b"), ("plain", "c-d"),
    ]  # fmt: skip
    assert [(one.variant, one.accuracy) for one in small.published] == [("a", 0.75), ("plain", 0.6)]


def test_quick_keeps_a_teacher_that_nobody_learns_from_so_that_it_is_told(tmp_path):
    teachers = {**PAIRED["teachers"], "idle": {"base": "digits/teacher"}}
    study = read_study(write(tmp_path, **{**PAIRED, "teachers": teachers}), quick=True)
    assert [teacher.name for teacher in study.teachers] == ["a", "idle"]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (["c-d"], "quick.grid.pair: variant one has no c-d; it has: a-b"),
        ({"a-b": {"model.student": "X"}}, "quick.grid.pair is {'a-b': {'model.student': 'X'}}, but expected is a list"),
    ],
)
def test_mistakes_of_quick_with_names(tmp_path, pair, message):
    with pytest.raises(UsageError) as caught:
        read_study(write(tmp_path, **{**PAIRED, "quick": {"grid": {"pair": pair}}}), quick=True)
    assert message in str(caught.value)


def test_published_numbers_may_lie_in_a_file_beside_the_study(tmp_path):
    numbers = PAIRED["published"]
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump(numbers))
    inside, beside = (
        read_study(write(tmp_path, **{**PAIRED, "published": section})).published
        for section in (numbers, "numbers.yaml")
    )
    assert inside == beside != ()


def test_an_axis_cannot_be_called_as_a_column_of_the_tables(folder):
    results = read_results(folder)
    fixed = {
        column
        for column in tidy(results)[0]
        if column not in (*results.plan.metrics, "model.alpha", "model.temperature")
    }
    cell = set(Findings.of(results).as_dict()["cells"][0])
    assert fixed | cell == set(TAKEN)
