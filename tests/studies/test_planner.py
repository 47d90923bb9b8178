"""Plans: which runs a study has, what they are called, and which studies are refused. A stand-in takes the parser's place."""

import json

import pytest

from kdlab.errors import UsageError
from kdlab.studies.plan import cells, compared_cells
from kdlab.studies.planner import as_argument, make_plan, run_id
from kdlab.studies.study import Comparison, Study, StudyTeacher, Variant

TEACHER = StudyTeacher("wide", ("t",), {}, 7)
PLAIN = Variant("plain", ("p",))
KD = Variant(
    "kd", ("k",), {"model.teacher.checkpoint": "@wide"}, {"model.alpha": (0.0, 1.0), "model.temperature": (1, 4)}
)
STUDY = Study("s", (PLAIN, KD), seeds=(0, 1, 2), teachers=(TEACHER,))


def resolve(arguments):
    """As much of a parser as a plan needs: keys -> values; --data.* go into data."""
    pairs = dict(zip(arguments[::2], arguments[1::2], strict=True))
    data = {key.removeprefix("--data."): value for key, value in pairs.items() if key.startswith("--data.")}
    model = {key: value for key, value in pairs.items() if not key.startswith("--data.")}
    return {"model": model, "data": {"class_path": data.pop("class", "Digits"), "init_args": data}}


def test_every_combination_with_every_seed():
    plan = make_plan(STUDY, resolve)
    assert len(plan.runs) == 1 + 3 + 2 * 2 * 3
    assert len({run.id for run in plan.runs}) == 16
    combinations = {
        (run.values["model.alpha"], run.values["model.temperature"], run.seed)
        for run in plan.runs
        if run.variant == "kd"
    }
    assert combinations == {(a, t, s) for a in (0.0, 1.0) for t in (1, 4) for s in (0, 1, 2)}
    assert list(cells(plan)) == [
        "plain", "kd, alpha 0.0, temperature 1", "kd, alpha 0.0, temperature 4",
        "kd, alpha 1.0, temperature 1", "kd, alpha 1.0, temperature 4",
    ]  # fmt: skip


def test_teachers_come_first_and_their_students_name_them():
    plan = make_plan(STUDY, resolve)
    teacher, *students = plan.runs
    assert (teacher.role, teacher.seed, teacher.needs) == ("teacher", 7, ())
    kd = [run for run in students if run.variant == "kd"]
    assert all(run.needs == (teacher.id,) for run in kd)
    assert f"@{teacher.id}" in kd[0].arguments
    assert kd[0].arguments[kd[0].arguments.index("--model.teacher.recipe") + 1] == "null"
    assert all(run.needs == () for run in students if run.variant == "plain")


def test_a_chain_of_teachers_and_weights_deep_in_a_value():
    middle = StudyTeacher("middle", ("m",), {"model.teacher.checkpoint": "@wide"})
    slot = {"class_path": "E", "init_args": {"teachers": [{"checkpoint": "@wide"}, {"checkpoint": "@middle"}]}}
    plan = make_plan(
        Study("s", (Variant("kd", ("k",), {"model.teacher": slot}),), seeds=(0,), teachers=(TEACHER, middle)), resolve
    )
    wide, second, student = plan.runs
    assert second.needs == (wide.id,)
    assert set(student.needs) == {wide.id, second.id}


def test_the_name_of_a_run_is_what_it_computes():
    assert run_id({"a": 1, "b": [2.0]}, 0) == run_id({"b": [2.0], "a": 1}, 0)
    assert len({run_id({"a": 1}, 0), run_id({"a": 2}, 0), run_id({"a": 1}, 1)}) == 3
    ids = [run.id for run in make_plan(STUDY, resolve).runs]
    more = Study("other", (PLAIN, KD), seeds=(0, 1, 2, 3), teachers=(TEACHER,), question="?")
    assert set(ids) < {run.id for run in make_plan(more, resolve).runs}  # neither name nor other seeds matter


def test_another_teacher_makes_other_students():
    def ids(seed, variant):
        study = Study("s", (PLAIN, KD), teachers=(StudyTeacher("wide", ("t",), {}, seed),))
        return {run.id for run in make_plan(study, resolve).runs if run.variant == variant}

    assert not ids(7, "kd") & ids(8, "kd")
    assert ids(7, "plain") == ids(8, "plain")


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (Study("s", (KD,)), "study s, kd, alpha 0.0, temperature 1: there is no teacher @wide before it; under `teachers` there are: none"),
        (Study("s", (PLAIN,), teachers=(TEACHER,)), "study s: nobody learns from teacher wide; set a checkpoint to @wide"),
        (Study("s", (Variant("a", ("p",), {"seed_everything": 3}),)), "study s, a: seed_everything is set by the study; list the seeds under `seeds`"),
        (
            Study("s", (PLAIN, Variant("b", ("p",), {"data.class": "MNIST"}))),
            "data is Digits in plain and MNIST in b; one table needs one protocol, so make two studies",
        ),
        (
            Study("s", (Variant("a", ("p",), {}, {"data.val_fraction": (0, 0.1)}),)),
            "data.val_fraction is 0 in a, val_fraction 0 and 0.1 in a, val_fraction 0.1; one table needs one protocol",
        ),
        (Study("s", (PLAIN,), comparisons=(Comparison({}, {"variant": "x"}),)), "a comparison is against {'variant': 'x'}, which is no cell"),
        (Study("s", (PLAIN,), comparisons=(Comparison({}, {"variant": "plain"}),)), "which is no cell other than plain"),
        (
            Study("s", (PLAIN, Variant("kd", ("k",), {}, {"a": (1, 2)})), comparisons=(Comparison({}, {"variant": "kd"}),)),
            "a comparison is against {'variant': 'kd'}, which is 2 cells (kd, a 1; kd, a 2 ...)",
        ),
    ],
)  # fmt: skip
def test_studies_that_cannot_work_are_refused(study, message):
    with pytest.raises(UsageError) as caught:
        make_plan(study, resolve)
    assert message in str(caught.value)


def with_rest(arguments):
    """`resolve`, and aside what changes how a run runs only."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    rest = {"trainer": {"devices": given.pop("--trainer.devices", "1")}, "profile": given.pop("--profile", None)}
    return {**resolve([part for pair in given.items() for part in pair]), "aside": rest}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trainer.devices", "2", "trainer.devices was 1, is 2"),
        ("profile", "true", "profile was None, is true"),
    ],
)
def test_cells_that_would_be_the_same_runs_are_refused(key, value, said):
    """The id of a run leaves out how it runs, so only one of them would."""
    one, two = Variant("one", ("p",)), Variant("two", ("p",), {key: value})
    with pytest.raises(UsageError) as caught:
        make_plan(Study("s", (one, two)), with_rest)
    assert f"study s: two would be the very same run as one, though {said}" in str(caught.value)
    assert len(make_plan(Study("s", (one, Variant("same", ("p",)))), with_rest).runs) == 10  # shown twice, run once


def test_cells_are_tested_alike():
    def with_test(arguments):
        rest = {"trainer": {"limit_test_batches": 4 if "b" in arguments else None}}
        return {**resolve(arguments), "aside": rest}

    with pytest.raises(UsageError, match=r"^trainer.limit_test_batches is None in a and 4 in b; one table needs one"):
        make_plan(Study("s", (Variant("a", ("a",)), Variant("b", ("b",)))), with_test)


def test_a_teacher_by_recipe_is_refused():
    def with_recipe(arguments):
        return {**resolve(arguments), "model": {"teacher": {"init_args": {"checkpoint": "c", "recipe": "t.yaml"}}}}

    with pytest.raises(UsageError, match=r"look for its teacher by the recipe t.yaml; name it under `teachers`"):
        make_plan(Study("s", (PLAIN,)), with_recipe)


def test_what_the_parser_refuses_is_told_with_the_cell():
    def refuse(arguments):
        raise UsageError("there is no option --model.alfa")

    with pytest.raises(UsageError, match=r"^study s, plain: there is no option --model.alfa$"):
        make_plan(Study("s", (PLAIN,)), refuse)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (True, "true"), (None, "null"), ("MNIST", "MNIST"), ([1, 2], "[1, 2]"), (1e-7, "1e-07")],
)
def test_values_become_arguments(value, text):
    assert as_argument(value) == text


SIZES = {"small": {"model.student": "Small", "model.teacher": "@wide"}, "big": {"model.student": "Big"}}
SIZED = Variant("kd", ("k",), {"model.teacher.checkpoint": "@wide"}, {"size": ("small", "big")}, {"size": SIZES})
BASELINE = Variant(
    "plain", ("p",), {}, {"size": ("small", "big")}, {"size": {"small": {}, "big": {"model.student": "Big"}}}
)


def with_network(arguments):
    """The stand-in for a teacher that trains a network."""
    model = {"init_args": {"student": {"class_path": "Wide"}}, "arguments": list(arguments)}
    return {**resolve(arguments), "model": model}


def test_a_named_axis_sets_several_keys_at_once():
    plan = make_plan(Study("s", (BASELINE, SIZED), seeds=(0, 1), teachers=(TEACHER,)), with_network)
    assert list(cells(plan)) == ["plain, size small", "plain, size big", "kd, size small", "kd, size big"]
    small, big = (run for run in plan.runs if run.variant == "kd" and run.seed == 0)
    assert small.values == {"size": "small"}
    assert small.label == "kd, size small, seed 0"
    assert "--size" not in small.arguments
    assert small.arguments[small.arguments.index("--model.student") + 1] == "Small"
    assert big.arguments[big.arguments.index("--model.student") + 1] == "Big"
    assert "--model.teacher" not in big.arguments


def test_a_teacher_by_name_brings_its_network_and_its_weights():
    plan = make_plan(Study("s", (SIZED,), seeds=(0,), teachers=(TEACHER,)), with_network)
    teacher, small, _ = plan.runs
    assert json.loads(small.arguments[small.arguments.index("--model.teacher") + 1]) == {
        "class_path": "FrozenTeacher",
        "init_args": {"network": {"class_path": "Wide"}, "checkpoint": f"@{teacher.id}", "recipe": None},
    }
    assert small.needs == (teacher.id,)


def test_a_teacher_without_a_network_of_its_own_cannot_be_meant_by_name():
    with pytest.raises(
        UsageError, match=r"s, kd, size small: teacher @wide trains no single student; set model.teacher"
    ):
        make_plan(Study("s", (SIZED,), seeds=(0,), teachers=(TEACHER,)), resolve)


def test_cells_are_compared_along_a_shared_axis():
    plan = make_plan(Study("s", (BASELINE, SIZED), seeds=(0,), teachers=(TEACHER,)), with_network)
    wanted = [("kd, size small", "plain, size small"), ("kd, size big", "plain, size big")]
    for of in ({}, {"variant": "kd"}):
        assert compared_cells(plan, Comparison(of, {"variant": "plain"}, ("size",)), {}) == wanted
    assert compared_cells(plan, Comparison({"size": "big"}, {"variant": "plain"}, ("size",)), {}) == wanted[1:]
    with pytest.raises(
        UsageError, match=r"a comparison is against \{'variant': 'x', 'size': 'small'\}, which is no cell"
    ):
        compared_cells(plan, Comparison({}, {"variant": "x"}, ("size",)), {})
    with pytest.raises(UsageError, match=r"is of \{'variant': 'kd'\} by pair, which is no cell other than"):
        compared_cells(plan, Comparison({"variant": "kd"}, {"variant": "plain"}, ("pair",)), {})


def test_a_cell_that_would_be_the_run_of_a_teacher_is_refused_too():
    teacher, kd = (
        StudyTeacher("wide", ("p",), {"profile": False}),
        Variant("kd", ("k",), {"model.teacher.checkpoint": "@wide"}),
    )
    with pytest.raises(UsageError, match=r"plain would be the very same run as teacher wide, though profile"):
        make_plan(Study("s", (PLAIN, kd), seeds=(1, 0), teachers=(teacher,)), with_rest)
