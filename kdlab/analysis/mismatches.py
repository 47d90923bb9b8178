"""Where plain KL prefers a wrong student to a right one, and whether standardized logits mend it.

A student that gives the right answer with small logits can be "further from the teacher" than one that gives a wrong
answer with large ones. Two students answer the same samples. Of a sample that exactly one of them answers correctly
(by its label)

* a **mismatch** is one where the wrong student has the smaller KL to the teacher,
* it is **mended** when, after all three are standardized, the right student has the smaller KL,
* it is **created** when plain KL ranks the right student first and standardized KL the wrong one.

A tie is neither. Samples that both or neither answer correctly rank no wrong student before a right one and are not
counted. Where the teacher is wrong as well, preferring the student that agrees with it is what KL is for;
`mismatches_teacher_right` counts the others.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdlab.analysis.inputs import NO_SAMPLES, Floats, Integers, share
from kdlab.analysis.logit_standardization import SampleDivergences
from kdlab.errors import UsageError

TIE = 1e-12  # nats, or this part of the larger divergence: what float64 rounding leaves of equal ones


@dataclass(frozen=True)
class MismatchCase:
    """A sample on which plain KL ranks the wrong student before the right one.

    Attributes:
        index: position of the sample in the split.
        file_index: position of its image in the data set's file, of which a validation split is a part; None where
            it is not known.
        label: its class.
        teacher_answer: the teacher's class.
        wrong_answer: the wrong student's class.
        right_student: name of the student that is right.
        kl_right: its KL to the teacher.
        kl_wrong: the wrong student's, smaller.
        kl_standardized_right: of the right student, standardized.
        kl_standardized_wrong: of the wrong student, standardized.
        spearman_right: rank correlation of the right student with the teacher; None where a row is constant.
        spearman_wrong: the same of the wrong student.
        mended: whether the right student has the smaller standardized KL.
    """

    index: int
    file_index: int | None
    label: int
    teacher_answer: int
    wrong_answer: int
    right_student: str
    kl_right: float
    kl_wrong: float
    kl_standardized_right: float
    kl_standardized_wrong: float
    spearman_right: float | None
    spearman_wrong: float | None
    mended: bool


@dataclass(frozen=True)
class Mismatches:
    """All cases of one split, with the numbers they are out of.

    Attributes:
        students: names of the two students.
        n: samples.
        one_right: samples that exactly one student answers correctly.
        mismatches: of those, the wrong student has the smaller plain KL.
        mismatch_rate: mismatches / one_right.
        mended: mismatches that standardization turns round.
        mended_rate: mended / mismatches.
        created: samples of one_right that only standardized KL ranks wrongly.
        mismatches_standardized: samples of one_right that standardized KL ranks wrongly, new or not mended.
        mismatches_teacher_right: mismatches where the teacher is right, so that KL has no excuse.
        mended_teacher_right: mended ones of those.
        cases: every mismatch, in the order of the split.
        undefined: field that is None, or holds None -> why.
    """

    students: tuple[str, str]
    n: int
    one_right: int
    mismatches: int
    mismatch_rate: float | None
    mended: int
    mended_rate: float | None
    created: int
    mismatches_standardized: int
    mismatches_teacher_right: int
    mended_teacher_right: int
    cases: tuple[MismatchCase, ...]
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def between(
        cls,
        first: SampleDivergences,
        second: SampleDivergences,
        students: tuple[str, str],
        file_index: Integers | None = None,
    ) -> Mismatches:
        """Compare two students of the same teacher on the same split.

        Args:
            first: of one student.
            second: of the other.
            students: their names.
            file_index: ``[N]`` positions of the images in the data set's file, if known.

        Raises:
            UsageError: if the two are of different splits, teachers, temperatures or standard deviations.
        """
        _check_comparable(first, second, students)
        first_right = first.correct
        one_right = first_right != second.correct
        plain = Ranking.of(first_right, first.kl, second.kl)
        scaled = Ranking.of(first_right, first.kl_standardized, second.kl_standardized)
        mismatch, mismatch_scaled = one_right & plain.wrong_first, one_right & scaled.wrong_first
        mended = mismatch & scaled.right_first
        teacher_right = first.teacher_answer == first.labels
        cases = tuple(
            _case(i, None if file_index is None else int(file_index[i]), first, second, students, plain, scaled)
            for i in np.flatnonzero(mismatch).tolist()
        )
        n, n_one_right, n_mismatch = len(mismatch), int(one_right.sum()), int(mismatch.sum())
        return cls(
            students=students,
            n=n,
            one_right=n_one_right,
            mismatches=n_mismatch,
            mismatch_rate=share(n_mismatch, n_one_right),
            mended=int(mended.sum()),
            mended_rate=share(int(mended.sum()), n_mismatch),
            created=int((plain.right_first & mismatch_scaled).sum()),
            mismatches_standardized=int(mismatch_scaled.sum()),
            mismatches_teacher_right=int((mismatch & teacher_right).sum()),
            mended_teacher_right=int((mended & teacher_right).sum()),
            cases=cases,
            undefined=_why_undefined(n, n_one_right, n_mismatch, cases),
        )


class Ranking(NamedTuple):
    """Divergences from the teacher on the N images that exactly one of two students answers correctly.

    Attributes:
        right: ``[N]``, of the student that is right.
        wrong: ``[N]``, of the other one.
    """

    right: Floats
    wrong: Floats

    @classmethod
    def of(cls, first_right: NDArray[np.bool_], first: Floats, second: Floats) -> Ranking:
        """Sort the divergences of the first and the second student by who is right."""
        return cls(np.where(first_right, first, second), np.where(first_right, second, first))

    @property
    def wrong_first(self) -> NDArray[np.bool_]:
        """``[N]`` whether the wrong student is nearer to the teacher."""
        return _less(self.wrong, self.right)

    @property
    def right_first(self) -> NDArray[np.bool_]:
        """``[N]`` whether the right student is nearer to the teacher."""
        return _less(self.right, self.wrong)


def _case(
    i: int,
    file_index: int | None,
    first: SampleDivergences,
    second: SampleDivergences,
    students: tuple[str, str],
    plain: Ranking,
    scaled: Ranking,
) -> MismatchCase:
    right, wrong = (first, second) if first.correct[i] else (second, first)
    return MismatchCase(
        index=i,
        file_index=file_index,
        label=int(first.labels[i]),
        teacher_answer=int(first.teacher_answer[i]),
        wrong_answer=int(wrong.answer[i]),
        right_student=students[0 if right is first else 1],
        kl_right=float(plain.right[i]),
        kl_wrong=float(plain.wrong[i]),
        kl_standardized_right=float(scaled.right[i]),
        kl_standardized_wrong=float(scaled.wrong[i]),
        spearman_right=_defined(right.spearman[i]),
        spearman_wrong=_defined(wrong.spearman[i]),
        mended=bool(scaled.right_first[i]),
    )


def _less(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Where `one` is smaller by more than rounding."""
    return one < other - TIE * np.maximum(1, other)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _check_comparable(first: SampleDivergences, second: SampleDivergences, students: tuple[str, str]) -> None:
    names = " and ".join(students)
    if (first.temperature, first.ddof) != (second.temperature, second.ddof):
        raise UsageError(
            f"{names} were measured with T = {first.temperature:g}, ddof = {first.ddof} and "
            f"T = {second.temperature:g}, ddof = {second.ddof}; measure both alike"
        )
    if not np.array_equal(first.labels, second.labels):
        raise UsageError(
            f"{names} answered {len(first.labels)} and {len(second.labels)} samples with different labels; "
            "give the same split in the same order"
        )
    if not np.array_equal(first.teacher_answer, second.teacher_answer):
        raise UsageError(f"{names} are compared with different teachers; measure both against the same one")


def _why_undefined(n: int, one_right: int, mismatches: int, cases: tuple[MismatchCase, ...]) -> dict[str, str]:
    why = {}
    if not one_right:
        why["mismatch_rate"] = "there is no sample that exactly one student answers correctly" if n else NO_SAMPLES
    if not mismatches:
        why["mended_rate"] = "there is no mismatch" if n else NO_SAMPLES
    reasons = []
    if any(case.file_index is None for case in cases):
        reasons.append("positions in the data set's file are not given")
    if any(case.spearman_right is None or case.spearman_wrong is None for case in cases):
        reasons.append("a row of equal logits has no rank correlation")
    return why | ({"cases": "; ".join(reasons)} if reasons else {})
