"""The report: the parts' numbers under stable keys, JSON without NaN, and a reason beside every None."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdlab.analysis import (
    Answers,
    Calibration,
    CKAMatrix,
    Confusion,
    Denoising,
    Fidelity,
    Mismatches,
    SampleDivergences,
    headline,
)
from kdlab.analysis import analyze as analysis_of
from kdlab.analysis.plain import as_plain_data
from kdlab.errors import UsageError

KEYS = [
    "name", "n", "num_classes", "class_names", "calibration", "confusion", "denoising", "fidelity",
    "confusion_difference", "logit_standardization", "cka", "comparison", "undefined",
]  # fmt: skip
COMPARISON_KEYS = [
    "students", "teacher_of", "teacher_difference", "paired", "calibration", "fidelity", "logit_standardization",
    "undefined",
]  # fmt: skip


HEADLINE_KEYS = [
    "n", *(f"{role}_{name}" for role in ("student", "teacher")
           for name in ("accuracy", "nll", "brier", "ece", "optimal_temperature")),
    "agreement", "kl", "kl_softened", "temperature", "same_wrong_rate", "spearman", "pearson", "kl_standardized", "ddof",
    "cka_last_layers", "noise_corrected_rate", "noise_memorised_rate", "against", "one_right", "mismatches", "mended",
    "mended_rate", "created",
]  # fmt: skip


def analyze(*args, **options):
    return analysis_of(*args, **options).as_dict()


@pytest.fixture
def run(made):
    return Answers(
        name="distilled",
        student_logits=torch.tensor(made.student),
        labels=torch.tensor(made.labels),
        teacher_logits=made.teacher,
        student_features={"early": made.features["early"][:50]},
        teacher_features={"early": made.features["early"][:50], "late": made.features["late"][:50]},
        training_labels=np.where(np.arange(200) < 20, (made.labels + 1) % 7, made.labels),
        class_names=tuple("abcdefg"),
        index=torch.arange(200) + 1000,
    )


@pytest.fixture
def second(made):
    return Answers("independent", made.other, made.labels)


def nones_without_reason(value, path=""):
    """Paths of None whose dictionary, or one around it, names no reason for it."""
    if isinstance(value, dict):
        reasons = value.get("undefined", {})
        for key, item in value.items():
            explained = any(reason == key or reason.startswith(f"{key}.") for reason in reasons)
            if not explained and key != "undefined":
                yield from [f"{path}.{key}"] if item is None else nones_without_reason(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from [f"{path}[{i}]"] if item is None else nones_without_reason(item, f"{path}[{i}]")


def test_the_report_holds_the_numbers_of_its_parts(run, made):
    report = analyze(run, temperature=2.0)
    assert (report["name"], report["n"], report["num_classes"]) == ("distilled", 200, 7)
    assert report["class_names"] == list("abcdefg")
    fidelity = Fidelity.from_logits(made.student, made.teacher, made.labels, temperature=2.0)
    assert report["fidelity"] == as_plain_data(fidelity)
    for role, logits in (("student", made.student), ("teacher", made.teacher)):
        assert report["calibration"][role] == as_plain_data(Calibration.from_logits(logits, made.labels))
        confusion = Confusion.from_logits(logits, made.labels)
        assert report["confusion"][role]["matrix"] == confusion.matrix.tolist()
        assert report["confusion"][role]["most_confused"][0] == confusion.most_confused()[0]._asdict()
        denoising = Denoising.from_logits(logits, run.training_labels, made.labels)
        assert report["denoising"][role] == as_plain_data(denoising)
        assert report["denoising"][role]["n_noisy"] == 20
    difference = np.array(report["confusion_difference"]["matrix"])
    matrices = (np.array(report["confusion"][role]["matrix"]) for role in ("student", "teacher"))
    np.testing.assert_array_equal(difference, np.subtract(*matrices))
    assert report["logit_standardization"]["kl"] == pytest.approx(fidelity.kl)
    assert report["cka"] == as_plain_data(CKAMatrix.from_features(run.student_features, run.teacher_features))
    assert report["cka"]["n"] == 50
    assert list(report["undefined"]) == ["comparison"]


def test_the_comparison_measures_both_students_with_the_same_teacher(run, second, made):
    comparison = analyze(run, second)["comparison"]
    assert list(comparison) == COMPARISON_KEYS
    assert comparison["students"] == ["distilled", "independent"]
    assert comparison["teacher_of"] == "distilled"
    assert comparison["undefined"] == {"teacher_difference": "only one run has a teacher"}
    for i, student in enumerate((made.student, made.other)):
        assert comparison["fidelity"][i] == as_plain_data(Fidelity.from_logits(student, made.teacher, made.labels))
        assert comparison["calibration"][i]["nll"] == Calibration.from_logits(student, made.labels).nll
        assert comparison["logit_standardization"]["summary"][i]["student"] == comparison["students"][i]
    measured = [SampleDivergences.from_logits(z, made.teacher, made.labels) for z in (made.student, made.other)]
    expected = as_plain_data(Mismatches.between(*measured, ("distilled", "independent"), np.arange(200) + 1000))
    assert comparison["logit_standardization"]["mismatches"] == expected
    assert expected["mismatches"] == len(expected["cases"]) > 0
    paired = comparison["paired"]
    accuracy = [row["accuracy"] for row in comparison["logit_standardization"]["summary"]]
    assert paired["accuracy_difference"] == pytest.approx(accuracy[0] - accuracy[1])
    assert paired["only_first_right"] + paired["only_second_right"] == expected["one_right"]


def test_an_independent_student_is_compared_with_the_teacher_of_the_other_run(run, second):
    report = analyze(second, run)
    assert report["fidelity"] is None
    assert report["comparison"]["teacher_of"] == "distilled"
    assert report["comparison"]["fidelity"][1] == analyze(run)["fidelity"]


def test_two_runs_with_a_teacher_each_say_how_far_apart_the_teachers_are(run, second, made):
    shifted = made.teacher.copy()
    shifted[3, 2] += 0.25
    comparison = analyze(run, replace(second, teacher_logits=shifted))["comparison"]
    assert comparison["teacher_difference"] == pytest.approx(0.25)
    assert comparison["teacher_of"] == "distilled"
    assert comparison["undefined"] == {}


def test_ddof_reaches_the_standardization(run, second):
    for ddof in (0, 1):
        report = analyze(run, second, ddof=ddof)
        assert report["logit_standardization"]["ddof"] == ddof
        assert {row["ddof"] for row in report["comparison"]["logit_standardization"]["summary"]} == {ddof}


def reports(run, second, nothing):
    logits, labels = nothing
    empty = Answers("empty", logits, labels, logits, {"a": np.zeros((0, 3))}, {"a": np.zeros((0, 3))}, labels)
    yield analysis_of(run)
    yield analysis_of(run, second)
    yield analysis_of(replace(run, index=None), second)
    yield analysis_of(second)
    yield analysis_of(second, replace(second, name="other"))
    yield analysis_of(empty, empty)
    one_class = Answers("one", np.array([[0.5, 0, 0]] * 2), np.array([1, 1]), np.zeros((2, 3)))
    yield analysis_of(one_class, replace(one_class, student_logits=np.array([[0, 0.5, 0]] * 2)))


def test_keys_are_always_the_same_every_none_has_a_reason_and_json_has_no_nan(run, second, nothing):
    for analysis in reports(run, second, nothing):
        figures, report = headline(analysis), analysis.as_dict()
        assert list(figures) == HEADLINE_KEYS
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures
        assert list(report) == KEYS
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert list(nones_without_reason(report)) == []
        if report["comparison"] is not None:
            assert list(report["comparison"]) == COMPARISON_KEYS


def test_the_search_for_unexplained_nones_finds_one():
    report = {"a": None, "b": {"c": [1, None]}, "d": {"e": None}, "undefined": {"d.e": "why"}}
    assert list(nones_without_reason(report)) == [".a", ".b.c[1]"]


def test_a_run_without_a_teacher_says_so(second):
    undefined = analyze(second)["undefined"]
    assert undefined["fidelity"] == undefined["calibration.teacher"] == "the run has no teacher"
    assert undefined["cka"] == "no layer is tapped in both student and teacher"
    assert undefined["denoising.student"] == "the labels trained on are not given"


def test_the_inputs_are_left_as_they_were(run, second):
    before = [np.asarray(z).copy() for z in (run.student_logits, run.teacher_logits, run.student_features["early"])]
    analyze(run, second)
    for value, copy in zip(
        (run.student_logits, run.teacher_logits, run.student_features["early"]), before, strict=True
    ):
        np.testing.assert_array_equal(np.asarray(value), copy)


def test_the_headline_holds_the_main_figures(run, second):
    figures, report = headline(analysis_of(run, second, temperature=2.0, ddof=0)), analyze(run, second, 2.0, 0)
    assert figures["n"] == 200
    for role in ("student", "teacher"):
        for name in ("accuracy", "nll", "brier", "ece", "optimal_temperature"):
            assert figures[f"{role}_{name}"] == report["calibration"][role][name]
    for name in ("agreement", "kl", "kl_softened", "same_wrong_rate", "spearman", "pearson"):
        assert figures[name] == report["fidelity"][name]
    assert (figures["temperature"], figures["ddof"], figures["against"]) == (2.0, 0, "independent")
    assert figures["kl_standardized"] == report["logit_standardization"]["kl_standardized"]
    assert figures["cka_last_layers"] == report["cka"]["values"][-1][-1]
    assert figures["noise_corrected_rate"] == report["denoising"]["student"]["corrected_rate"]
    cases = report["comparison"]["logit_standardization"]["mismatches"]
    assert figures["mismatches"] == cases["mismatches"] > figures["mended"] == cases["mended"] > 0


def test_each_part_is_measured_once(run, second, monkeypatch):
    measured = []
    for part, module in ((Calibration, "report"), (Confusion, "report"), (SampleDivergences, "following")):
        whole = part.from_logits.__func__

        def counted(cls, *args, whole=whole, **options):
            measured.append(cls.__name__)
            return whole(cls, *args, **options)

        monkeypatch.setattr(f"kdlab.analysis.{module}.{part.__name__}.from_logits", classmethod(counted))
    analysis = analysis_of(run, second)
    analysis.as_dict()
    headline(analysis)
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    from kdlab.analysis.figures import draw_all

    draw_all(analysis)
    # student, teacher and the second student
    assert sorted(measured) == [*["Calibration"] * 3, *["Confusion"] * 2, *["SampleDivergences"] * 2]


def test_a_case_names_the_image_in_the_file(run, second):
    cases = analyze(run, second)["comparison"]["logit_standardization"]["mismatches"]["cases"]
    assert all(case["file_index"] == case["index"] + 1000 for case in cases)
    unknown = analyze(replace(run, index=None), second)["comparison"]["logit_standardization"]["mismatches"]
    assert {case["file_index"] for case in unknown["cases"]} == {None}
    assert unknown["undefined"]["cases"] == "positions in the data set's file are not given"


def test_runs_that_do_not_belong_together_are_errors(run, second, made):
    moved = replace(second, index=np.where(np.arange(200) < 3, 7, np.arange(200) + 1000))
    with pytest.raises(
        UsageError, match=r"distilled and independent answered different images \(3 of 200\); give runs"
    ):
        analyze(run, moved)
    with pytest.raises(UsageError, match=r"index has the shape \[199\] and the type int64; give one whole position"):
        analyze(run, replace(second, index=np.arange(199)))
    with pytest.raises(UsageError, match=r"distilled has the shape \[200, 7\] but independent has \[199, 7\]"):
        analyze(run, Answers("independent", made.other[1:], made.labels[1:]))
    with pytest.raises(UsageError, match="distilled and independent answered images with different labels"):
        analyze(run, replace(second, labels=(made.labels + 1) % 7))
    with pytest.raises(UsageError, match="there are 2 class names but 7 classes; give one name per class"):
        analyze(replace(second, class_names=("cat", "dog")))
    with pytest.raises(UsageError, match="ddof is 3"):
        analyze(run, ddof=3)
