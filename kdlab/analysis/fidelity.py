"""How closely a student follows its teacher, apart from how often it is right.

Shapes: N samples, K classes. Where two classes share the highest logit, the lower index is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax
from scipy.stats import rankdata

from kdlab.analysis.inputs import (
    NO_SAMPLES,
    Floats,
    Values,
    mean,
    read_labels,
    read_logit_pair,
    read_temperature,
    share,
)


@dataclass(frozen=True)
class Fidelity:
    """How a student's answers relate to its teacher's on one split.

    Source: Stanton et al., Does Knowledge Distillation Really Work?, 2021 (agreement, divergence).

    Attributes:
        n: samples.
        num_classes: K.
        student_accuracy: share of samples that the student answers correctly.
        teacher_accuracy: the same of the teacher.
        agreement: share of samples to which both give the same answer, right or wrong.
        kl: mean KL(teacher || student) at temperature 1, in nats.
        temperature: the T of `kl_softened`.
        kl_softened: mean KL(teacher || student) of logits / T, in nats; not multiplied by T^2.
        teacher_wrong: samples that the teacher answers wrongly.
        both_wrong: samples that both answer wrongly.
        same_wrong: samples to which both give the same wrong answer.
        same_wrong_rate: same_wrong / both_wrong. Errors at random over K - 1 wrong classes would give 1 / (K - 1).
        correlated: samples with a correlation; a row of equal logits has none.
        spearman: mean over them of the rank correlation of the K logits; tied logits share their mean rank.
        pearson: mean over them of the linear correlation of the K logits.
        undefined: field that is None -> why.
    """

    n: int
    num_classes: int
    student_accuracy: float | None
    teacher_accuracy: float | None
    agreement: float | None
    kl: float | None
    temperature: float
    kl_softened: float | None
    teacher_wrong: int
    both_wrong: int
    same_wrong: int
    same_wrong_rate: float | None
    correlated: int
    spearman: float | None
    pearson: float | None
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_logits(
        cls, student_logits: Values, teacher_logits: Values, labels: Values, temperature: float = 4.0
    ) -> Fidelity:
        """Compare ``[N, K]`` logits of student and teacher on samples with ``[N]`` labels.

        Raises:
            UsageError: if shapes, labels, values or the temperature do not fit.
        """
        temperature = read_temperature(temperature)
        student, teacher = read_logit_pair(student_logits, "student logits", teacher_logits, "teacher logits")
        truth = read_labels(labels, "labels", student)
        n, num_classes = student.shape
        student_answer, teacher_answer = student.argmax(axis=1), teacher.argmax(axis=1)
        equal = student_answer == teacher_answer
        both_wrong = (student_answer != truth) & (teacher_answer != truth)
        n_both_wrong, n_same_wrong = int(both_wrong.sum()), int((both_wrong & equal).sum())
        pearson = correlation(student, teacher)
        defined = ~np.isnan(pearson)
        fields = {
            "student_accuracy": share(int((student_answer == truth).sum()), n),
            "teacher_accuracy": share(int((teacher_answer == truth).sum()), n),
            "agreement": share(int(equal.sum()), n),
            "kl": mean(divergence(student, teacher)),
            "kl_softened": mean(divergence(student, teacher, temperature)),
            "same_wrong_rate": share(n_same_wrong, n_both_wrong),
            "spearman": mean(rank_correlation(student, teacher)[defined]),
            "pearson": mean(pearson[defined]),
        }
        return cls(
            n=n,
            num_classes=num_classes,
            temperature=temperature,
            teacher_wrong=int((teacher_answer != truth).sum()),
            both_wrong=n_both_wrong,
            same_wrong=n_same_wrong,
            correlated=int(defined.sum()),
            undefined={name: _why(name, n) for name, value in fields.items() if value is None},
            **fields,
        )


def divergence(student: Floats, teacher: Floats, temperature: float = 1.0) -> Floats:
    """Return ``[N]`` KL(teacher || student) in nats of ``[N, K]`` logits divided by the temperature."""
    teacher_log_p = log_softmax(teacher / temperature, axis=1)
    student_log_p = log_softmax(student / temperature, axis=1)
    kl: Floats = (np.exp(teacher_log_p) * (teacher_log_p - student_log_p)).sum(axis=1)
    return np.maximum(kl, 0)  # rounding makes -1e-17 of the 0 of equal distributions


def correlation(student: Floats, teacher: Floats) -> Floats:
    """Return ``[N]`` Pearson correlations of ``[N, K]`` logits row by row, NaN where a row is constant."""
    # scipy's pearsonr works by rows only from 1.14 on
    constant = (np.ptp(student, axis=1) == 0) | (np.ptp(teacher, axis=1) == 0)
    one, other = _unit_rows(student), _unit_rows(teacher)
    return np.where(constant, np.nan, (one * other).sum(axis=1).clip(-1, 1))


def rank_correlation(student: Floats, teacher: Floats) -> Floats:
    """Return ``[N]`` Spearman correlations of ``[N, K]`` logits row by row, NaN where a row is constant."""
    return correlation(rankdata(student, axis=1), rankdata(teacher, axis=1))


def _unit_rows(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: Floats = centred / np.where(norm == 0, 1, norm)
    return unit


def _why(name: str, n: int) -> str:
    if n == 0:
        return NO_SAMPLES
    if name == "same_wrong_rate":
        return "there is no sample that both answer wrongly"
    return "every sample has a row of equal logits, which has no correlation"
