"""All that the answers of one run to one split say, and against a second run.

The results are objects; `Analysis.as_dict` is their view as plain data, `kdlab.analysis.figures` the one as pictures.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdlab.analysis.answers import Answers
from kdlab.analysis.calibration import Calibration
from kdlab.analysis.cka import CKAMatrix
from kdlab.analysis.comparison import Comparison
from kdlab.analysis.confusion import Confusion
from kdlab.analysis.denoising import Denoising
from kdlab.analysis.following import Following
from kdlab.analysis.inputs import Values, read_logits
from kdlab.analysis.plain import as_plain_data
from kdlab.errors import UsageError

NO_TEACHER = "the run has no teacher"
NO_FEATURES = "no layer is tapped in both student and teacher"
NO_TRAINING_LABELS = "the labels trained on are not given"


@dataclass(frozen=True, eq=False)
class NetworkAnalysis:
    """One network, measured on its own.

    Attributes:
        calibration: of its probabilities.
        confusion: of its classes.
        denoising: what it makes of wrong labels; None where the labels trained on are not given.
    """

    calibration: Calibration
    confusion: Confusion
    denoising: Denoising | None

    @classmethod
    def of(cls, logits: Values, answers: Answers) -> NetworkAnalysis:
        """Measure ``[N, K]`` logits."""
        trained, labels = answers.training_labels, answers.labels
        return cls(
            Calibration.from_logits(logits, labels),
            Confusion.from_logits(logits, labels),
            None if trained is None else Denoising.from_logits(logits, trained, labels),
        )


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that is known of one split.

    Attributes:
        name: of the run.
        n: samples.
        num_classes: K.
        class_names: K names; empty where none are given.
        student: measured on its own.
        teacher: measured on its own; None where there is none.
        following: how closely the student follows its teacher; None where there is none.
        cka: similarity of the tapped layers; None where there are none.
        comparison: with the student of a second run; None where none is given.
    """

    name: str
    n: int
    num_classes: int
    class_names: tuple[str, ...]
    student: NetworkAnalysis
    teacher: NetworkAnalysis | None
    following: Following | None
    cka: CKAMatrix | None
    comparison: Comparison | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as data that JSON can hold.

        The keys are always the same. What is not known is None, and ``undefined`` beside it says why.
        """
        networks = {"student": self.student, "teacher": self.teacher}
        difference = None if self.teacher is None else self.student.confusion.minus(self.teacher.confusion)
        report = {
            "name": self.name,
            "n": self.n,
            "num_classes": self.num_classes,
            "class_names": self.class_names or None,
            "calibration": {role: found and found.calibration for role, found in networks.items()},
            "confusion": {role: found and _confusion(found.confusion) for role, found in networks.items()},
            "denoising": {role: found and found.denoising for role, found in networks.items()},
            "fidelity": self.following and self.following.fidelity,
            "confusion_difference": difference,
            "logit_standardization": self.following and self.following.summary(self.name),
            "cka": self.cka,
            "comparison": self.comparison and self.comparison.as_dict(),
            "undefined": self._undefined(),
        }
        plain: dict[str, Any] = as_plain_data(report)
        return plain

    def _undefined(self) -> dict[str, str]:
        reasons = {}
        if self.teacher is None:
            names = ("calibration.teacher", "confusion.teacher", "denoising.teacher", "fidelity",
                     "confusion_difference", "logit_standardization")  # fmt: skip
            reasons = dict.fromkeys(names, NO_TEACHER)
        elif self.teacher.denoising is None:
            reasons["denoising.teacher"] = NO_TRAINING_LABELS
        if self.student.denoising is None:
            reasons["denoising.student"] = NO_TRAINING_LABELS
        if not self.class_names:
            reasons["class_names"] = "none are given"
        if self.cka is None:
            reasons["cka"] = NO_FEATURES
        if self.comparison is None:
            reasons["comparison"] = "no second run is given"
        return reasons


def analyze(answers: Answers, against: Answers | None = None, temperature: float = 4.0, ddof: int = 1) -> Analysis:
    """Measure everything, once.

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
    teacher = answers.teacher_logits
    student = NetworkAnalysis.of(answers.student_logits, answers)
    following = None
    if teacher is not None:
        following = Following.of(answers.student_logits, teacher, answers.labels, temperature, ddof)
    comparison = None
    if against is not None:
        comparison = Comparison.between(answers, against, student.calibration, following, temperature, ddof)
    tapped = answers.student_features and answers.teacher_features
    return Analysis(
        name=answers.name,
        n=len(logits),
        num_classes=logits.shape[1],
        class_names=tuple(answers.class_names),
        student=student,
        teacher=None if teacher is None else NetworkAnalysis.of(teacher, answers),
        following=following,
        cka=CKAMatrix.from_features(answers.student_features, answers.teacher_features) if tapped else None,
        comparison=comparison,
    )


def _confusion(found: Confusion) -> dict[str, Any]:
    return {**as_plain_data(found), "most_confused": found.most_confused()}


def _check_class_names(names: Sequence[str], num_classes: int) -> None:
    if names and len(names) != num_classes:
        raise UsageError(f"there are {len(names)} class names but {num_classes} classes; give one name per class")
