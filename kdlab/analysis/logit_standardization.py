"""How standardized logits change the divergence between a student and its teacher.

KL(teacher || student) compares the size of the logits as well as their shape. Standardization (zero mean, unit
standard deviation in each row) leaves the shape.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdlab.analysis.fidelity import divergence, rank_correlation
from kdlab.analysis.inputs import (
    NO_SAMPLES,
    Floats,
    Integers,
    Values,
    mean,
    read_labels,
    read_logit_pair,
    read_temperature,
    share,
)
from kdlab.errors import UsageError

EPS = 1e-7  # added to the standard deviation, as in the authors' code


def standardize(logits: Floats, ddof: int = 1, eps: float = EPS) -> Floats:
    """Return ``[N, K]`` logits with zero mean and unit standard deviation in each row; a constant row gives zeros.

    Source: Sun et al., Logit Standardization in Knowledge Distillation, 2024.

    Raises:
        UsageError: if `ddof` is neither 0 nor 1.
    """
    if ddof not in (0, 1):
        raise UsageError(f"ddof is {ddof}; give 1 (sample standard deviation, Sun et al. 2024) or 0 (population)")
    # rounding leaves 1e-17 of a constant row, which a division by its own deviation would blow up to 1
    varies = np.ptp(logits, axis=1, keepdims=True) > 0
    deviation = logits.std(axis=1, ddof=ddof, keepdims=True)
    centred: Floats = logits - logits.mean(axis=1, keepdims=True)
    return np.where(varies, centred / np.where(varies, deviation + eps, 1), 0.0)


@dataclass(frozen=True, eq=False)
class SampleDivergences:
    """How far one student is from its teacher on every sample of a split.

    Attributes:
        temperature: T of both divergences.
        ddof: of the standard deviation.
        labels: ``[N]`` true classes.
        answer: ``[N]`` the student's classes.
        teacher_answer: ``[N]`` the teacher's classes.
        kl: ``[N]`` KL(teacher || student) in nats, not multiplied by T^2.
        kl_standardized: ``[N]`` the same after both were standardized.
        spearman: ``[N]`` rank correlation with the teacher's logits; NaN where a row is constant.
    """

    temperature: float
    ddof: int
    labels: Integers
    answer: Integers
    teacher_answer: Integers
    kl: Floats
    kl_standardized: Floats
    spearman: Floats

    @classmethod
    def from_logits(
        cls, student_logits: Values, teacher_logits: Values, labels: Values, temperature: float = 1.0, ddof: int = 1
    ) -> SampleDivergences:
        """Compare ``[N, K]`` logits of student and teacher on samples with ``[N]`` labels.

        Raises:
            UsageError: if shapes, labels, values, the temperature or `ddof` do not fit.
        """
        temperature = read_temperature(temperature)
        student, teacher = read_logit_pair(student_logits, "student logits", teacher_logits, "teacher logits")
        scaled_student, scaled_teacher = standardize(student, ddof), standardize(teacher, ddof)
        return cls(
            temperature=temperature,
            ddof=ddof,
            labels=read_labels(labels, "labels", student),
            answer=student.argmax(axis=1),
            teacher_answer=teacher.argmax(axis=1),
            kl=divergence(student, teacher, temperature),
            kl_standardized=divergence(scaled_student, scaled_teacher, temperature),
            spearman=rank_correlation(student, teacher),
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """``[N]`` whether the student is right."""
        return np.equal(self.answer, self.labels)


@dataclass(frozen=True)
class SampleMeans:
    """Means over some samples of a split.

    Attributes:
        n: samples.
        kl: mean KL(teacher || student) in nats, not multiplied by T^2.
        kl_standardized: the same after both were standardized.
        correlated: samples with a correlation; a row of equal logits has none.
        spearman: mean over them of the rank correlation with the teacher's logits.
        undefined: field that is None -> why.
    """

    n: int
    kl: float | None
    kl_standardized: float | None
    correlated: int
    spearman: float | None
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: SampleDivergences, chosen: NDArray[np.bool_], nobody: str) -> SampleMeans:
        """Average over the samples where ``[N]`` `chosen` is True; `nobody` is why there may be none."""
        spearman = samples.spearman[chosen & ~np.isnan(samples.spearman)]
        undefined = {}
        if not spearman.size:
            undefined["spearman"] = "every sample has a row of equal logits, which has no correlation"
        if not chosen.any():
            undefined = dict.fromkeys(("kl", "kl_standardized", "spearman"), nobody)
        return cls(
            n=int(chosen.sum()),
            kl=mean(samples.kl[chosen]),
            kl_standardized=mean(samples.kl_standardized[chosen]),
            correlated=spearman.size,
            spearman=mean(spearman),
            undefined=undefined,
        )


@dataclass(frozen=True)
class StandardizationSummary:
    """One student's row of the summary table.

    Attributes:
        student: its name.
        n: samples.
        temperature: T of both divergences.
        ddof: of the standard deviation.
        kl: mean KL(teacher || student) in nats, not multiplied by T^2.
        kl_standardized: the same after both were standardized.
        correlated: samples with a correlation; a row of equal logits has none.
        spearman: mean over them of the rank correlation with the teacher's logits.
        correct: samples answered correctly.
        accuracy: correct / n.
        right: means over the samples answered correctly.
        wrong: means over the others.
        undefined: field that is None -> why.
    """

    student: str
    n: int
    temperature: float
    ddof: int
    kl: float | None
    kl_standardized: float | None
    correlated: int
    spearman: float | None
    correct: int
    accuracy: float | None
    right: SampleMeans
    wrong: SampleMeans
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, student: str, samples: SampleDivergences) -> StandardizationSummary:
        """Average over the split."""
        correct, n = samples.correct, len(samples.kl)
        everything = SampleMeans.of(samples, np.ones(n, dtype=np.bool_), NO_SAMPLES)
        return cls(
            student=student,
            n=n,
            temperature=samples.temperature,
            ddof=samples.ddof,
            kl=everything.kl,
            kl_standardized=everything.kl_standardized,
            correlated=everything.correlated,
            spearman=everything.spearman,
            correct=int(correct.sum()),
            accuracy=share(int(correct.sum()), n),
            right=SampleMeans.of(samples, correct, "no sample is answered correctly" if n else NO_SAMPLES),
            wrong=SampleMeans.of(samples, ~correct, "every sample is answered correctly" if n else NO_SAMPLES),
            undefined={**everything.undefined, **({} if n else {"accuracy": NO_SAMPLES})},
        )
