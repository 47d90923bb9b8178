"""Study files: what they mean, and what is refused with the key that is wrong."""

from pathlib import Path

import pytest
import yaml

from kdlab.errors import UsageError
from kdlab.studies.file import read_study
from kdlab.studies.study import Comparison, Teacher, Variant

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


def test_a_file_says_what_it_says(tmp_path):
    study = read_study(write(tmp_path))
    assert study.name == "s"
    assert study.seeds == (3, 1)
    assert study.settings == {"data.val_fraction": 0}
    assert study.teachers == (Teacher("wide", ("digits/teacher",), {}, 7),)
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
        ({"variants": {"a": {"bas": "x"}}}, "variants.a has no key bas; there are: base, set, grid"),
        ({"variants": {"a": {"set": {}}}}, "variants.a.base is None; give a config, or a list of configs"),
        ({"variants": {"a b": {"base": "x"}}}, "variants.a b: a b is no name; use letters, digits"),
        ({"variants": {"a": {"base": "x", "grid": {"k": []}}}}, "variants.a.grid.k is [], but expected is a list"),
        ({"variants": {"a": {"base": "x", "grid": {"k": 3}}}}, "variants.a.grid.k is 3, but expected is a list"),
        ({"variants": {"a": {"base": "x", "grid": {"k": [0, 0.0]}}}}, "variants.a.grid.k has the value 0.0 twice"),
        ({"variants": {"a": {"base": "x", "grid": {"k": [[1]]}}}}, "a grid takes numbers and names, so make variants"),
        ({"variants": ["a"]}, "variants is ['a'], but expected are keys with values"),
        ({"seeds": [0, 0]}, "seeds is [0, 0], with a seed twice; the same run twice is no second sample"),
        ({"seeds": [-1]}, "seeds has the value -1; a seed is a whole number of 0 or more, below 2^32"),
        ({"seeds": [True]}, "seeds has the value True; a seed is a whole number"),
        ({"seeds": 5}, "seeds is 5, but expected is a list with at least one value: [0, 1]"),
        ({"teachers": {"t": {"base": "x", "seed": "one"}}}, "teachers.t.seed has the value one; a seed is"),
        ({"comparisons": [{"of": "kd"}]}, "comparisons[0] has no `against`; name the variant"),
        ({"comparisons": [{"against": "kd", "with": 1}]}, "comparisons[0] has no key with; there are: of, against"),
        ({"name": "a/b"}, "name: a/b is no name; use letters"),
    ],
)
def test_mistakes_are_told_with_their_key(tmp_path, changes, message):
    with pytest.raises(UsageError) as caught:
        read_study(write(tmp_path, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("quick", "message"),
    [
        (None, "has no section quick, so it cannot be run with --quick; add one, or leave it out"),
        ({"grid": {"model.beta": [1]}}, "quick.grid.model.beta: no variant has model.beta in its grid"),
        ({"epochs": 1}, "quick has no key epochs; there are: seeds, set, grid"),
    ],
)
def test_mistakes_of_quick(tmp_path, quick, message):
    with pytest.raises(UsageError, match=r".") as caught:
        read_study(write(tmp_path, quick=quick), quick=True)
    assert message in str(caught.value)
