"""All that the answers of one run to one split say, as plain data for JSON, and against a second run.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from kdlab.analysis.calibration import Calibration
from kdlab.analysis.cka import CKAMatrix
from kdlab.analysis.confusion import ConfusedPair, Confusion
from kdlab.analysis.denoising import Denoising
from kdlab.analysis.fidelity import Fidelity
from kdlab.analysis.inputs import Values, read_labels, read_logit_pair, read_logits
from kdlab.analysis.logit_standardization import SampleDivergences, StandardizationSummary
from kdlab.analysis.mismatches import Mismatches
from kdlab.analysis.paired import Paired
from kdlab.analysis.toy_examples import FOUR_CLASSES, TEN_CLASSES, toy_table
from kdlab.errors import UsageError

NO_TEACHER = "the run has no teacher"
NO_TEACHERS = "neither run has a teacher"
NO_FEATURES = "no layer is tapped in both student and teacher"
NO_TRAINING_LABELS = "the labels trained on are not given"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run's student, and its teacher if it has one, answered to one split.

    Attributes:
        name: of the run.
        student_logits: ``[N, K]``.
        labels: ``[N]`` true classes, as the data set states them.
        teacher_logits: ``[N, K]`` for the same images, not augmented; None where the run has no teacher.
        student_features: tapped layer -> ``[M, ...]``; M may be smaller than N.
        teacher_features: tapped layer -> ``[M, ...]`` for the same M images.
        training_labels: ``[N]`` classes trained on, wrong where label noise struck; of a training split only.
        class_names: K names, for figures and readers.
    """

    name: str
    student_logits: Values
    labels: Values
    teacher_logits: Values | None = None
    student_features: Mapping[str, Values] = field(default_factory=dict)
    teacher_features: Mapping[str, Values] = field(default_factory=dict)
    training_labels: Values | None = None
    class_names: Sequence[str] = ()


def analyze(
    answers: Answers, against: Answers | None = None, temperature: float = 4.0, ddof: int = 1
) -> dict[str, Any]:
    """Return everything that is known of one split, as data that JSON can hold.

    The keys are always the same. What is not known is None, and ``undefined`` beside it says why.

    Args:
        answers: of the run.
        against: of a second run, to the same images in the same order. Both students are compared with the
            teacher of the first run, or with that of the second where the first has none.
        temperature: of ``kl_softened``; the divergences of the standardization analysis are at T = 1.
        ddof: of the standardization: 1 (Sun et al. 2024) or 0.

    Raises:
        UsageError: if shapes, labels or values do not fit together.
    """
    logits = read_logits(answers.student_logits, "student logits")
    _check_class_names(answers.class_names, logits.shape[1])
    undefined: dict[str, str] = {}
    report = {
        "name": answers.name,
        "n": len(logits),
        "num_classes": logits.shape[1],
        "class_names": answers.class_names or None,
        **_answers_alone(answers, undefined),
        **_student_and_teacher(answers, temperature, ddof, undefined),
        "cka": None,
        "toy_examples": {example.name: toy_table(example) for example in (FOUR_CLASSES, TEN_CLASSES)},
        "comparison": None if against is None else _compare(answers, against, temperature, ddof),
        "undefined": undefined,
    }
    if not answers.class_names:
        undefined["class_names"] = "none are given"
    if answers.student_features and answers.teacher_features:
        report["cka"] = CKAMatrix.from_features(answers.student_features, answers.teacher_features)
    else:
        undefined["cka"] = NO_FEATURES
    if against is None:
        undefined["comparison"] = "no second run is given"
    plain: dict[str, Any] = as_plain_data(report)
    return plain


def as_plain_data(value: Any) -> Any:  # noqa: ANN401 (any nesting of results)
    """Return results as dicts, lists, numbers, strings and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_plain_data(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, ConfusedPair):
        return as_plain_data(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): as_plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain_data(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def _answers_alone(answers: Answers, undefined: dict[str, str]) -> dict[str, Any]:
    """The sections in which student and teacher are measured each on its own."""
    calibration, confusion, denoising = (dict[str, Any]() for _ in range(3))
    for role, logits in (("student", answers.student_logits), ("teacher", answers.teacher_logits)):
        calibration[role] = confusion[role] = denoising[role] = None
        if logits is None:
            undefined |= {f"{section}.{role}": NO_TEACHER for section in ("calibration", "confusion", "denoising")}
            continue
        calibration[role] = Calibration.from_logits(logits, answers.labels)
        found = Confusion.from_logits(logits, answers.labels)
        confusion[role] = as_plain_data(found) | {"most_confused": found.most_confused()}
        if answers.training_labels is None:
            undefined[f"denoising.{role}"] = NO_TRAINING_LABELS
        else:
            denoising[role] = Denoising.from_logits(logits, answers.training_labels, answers.labels)
    return {"calibration": calibration, "confusion": confusion, "denoising": denoising}


def _student_and_teacher(answers: Answers, temperature: float, ddof: int, undefined: dict[str, str]) -> dict[str, Any]:
    """The sections that compare the student with its teacher."""
    student, teacher, labels = answers.student_logits, answers.teacher_logits, answers.labels
    names = ("fidelity", "confusion_difference", "logit_standardization")
    if teacher is None:
        undefined |= dict.fromkeys(names, NO_TEACHER)
        return dict.fromkeys(names)
    samples = SampleDivergences.from_logits(student, teacher, labels, ddof=ddof)
    difference = Confusion.from_logits(student, labels).minus(Confusion.from_logits(teacher, labels))
    fidelity = Fidelity.from_logits(student, teacher, labels, temperature)
    return dict(zip(names, (fidelity, difference, StandardizationSummary.of(answers.name, samples)), strict=True))


def _compare(first: Answers, second: Answers, temperature: float, ddof: int) -> dict[str, Any]:
    """Two students of one teacher, first minus second."""
    _check_same_split(first, second)
    runs, students = (first, second), (first.name, second.name)
    teachers = [run.teacher_logits for run in runs if run.teacher_logits is not None]
    undefined: dict[str, str] = {}
    comparison: dict[str, Any] = {
        "students": students,
        "teacher_of": next((run.name for run in runs if run.teacher_logits is not None), None),
        "teacher_difference": None,
        "paired": Paired.from_logits(first.student_logits, second.student_logits, first.labels),
        "calibration": [Calibration.from_logits(run.student_logits, run.labels) for run in runs],
        "fidelity": None,
        "logit_standardization": None,
        "undefined": undefined,
    }
    if len(teachers) == 2:
        one, other = read_logit_pair(teachers[0], f"teacher of {first.name}", teachers[1], f"teacher of {second.name}")
        comparison["teacher_difference"] = float(np.abs(one - other).max(initial=0))
    else:
        undefined["teacher_difference"] = "only one run has a teacher" if teachers else NO_TEACHERS
    if not teachers:
        undefined |= dict.fromkeys(("teacher_of", "fidelity", "logit_standardization"), NO_TEACHERS)
        return comparison
    comparison["fidelity"] = [
        Fidelity.from_logits(run.student_logits, teachers[0], run.labels, temperature) for run in runs
    ]
    samples = [SampleDivergences.from_logits(run.student_logits, teachers[0], run.labels, ddof=ddof) for run in runs]
    comparison["logit_standardization"] = {
        "summary": [StandardizationSummary.of(*row) for row in zip(students, samples, strict=True)],
        "mismatches": Mismatches.between(samples[0], samples[1], students),
    }
    return comparison


def _check_same_split(first: Answers, second: Answers) -> None:
    names = f"{first.name} and {second.name}"
    one, _ = read_logit_pair(first.student_logits, first.name, second.student_logits, second.name)
    if not np.array_equal(read_labels(first.labels, "labels", one), read_labels(second.labels, "labels", one)):
        raise UsageError(f"{names} answered images with different labels; give the same split in the same order")


def _check_class_names(names: Sequence[str], num_classes: int) -> None:
    if names and len(names) != num_classes:
        raise UsageError(f"there are {len(names)} class names but {num_classes} classes; give one name per class")
