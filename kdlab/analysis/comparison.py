"""Two students of one teacher on the same split.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdlab.analysis.answers import Answers
from kdlab.analysis.calibration import Calibration
from kdlab.analysis.following import Following
from kdlab.analysis.inputs import Integers, Values, read_labels, read_logit_pair, read_positions
from kdlab.analysis.mismatches import Mismatches
from kdlab.analysis.paired import Paired
from kdlab.analysis.plain import as_plain_data
from kdlab.errors import UsageError

NO_TEACHERS = "neither run has a teacher"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two students, first minus second, both compared with one teacher.

    Attributes:
        students: their names.
        teacher_of: name of the run whose teacher it is; None where neither has one.
        teacher_difference: largest difference of a logit between the teachers of both runs; None without two.
        paired: right and wrong answers of both.
        calibration: of each.
        following: of each; None without a teacher.
        mismatches: where plain KL ranks the wrong one first; None without a teacher.
        undefined: field that is None -> why.
    """

    students: tuple[str, str]
    teacher_of: str | None
    teacher_difference: float | None
    paired: Paired
    calibration: tuple[Calibration, Calibration]
    following: tuple[Following, Following] | None
    mismatches: Mismatches | None
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def between(
        cls,
        first: Answers,
        second: Answers,
        calibration: Calibration,
        following: Following | None,
        temperature: float,
        ddof: int,
    ) -> Comparison:
        """Compare the students of two runs.

        Args:
            first: of one run.
            second: of the other, to the same images in the same order.
            calibration: of the first student.
            following: of the first student behind the first run's teacher, if it has one.
            temperature: of ``kl_softened``.
            ddof: of the standardization.

        Raises:
            UsageError: if the two did not answer the same images.
        """
        index = _same_split(first, second)
        runs, students = (first, second), (first.name, second.name)
        difference, why = _teacher_difference(first, second)
        undefined = {} if difference is not None else {"teacher_difference": why}
        owner = next((run for run in runs if run.teacher_logits is not None), None)
        both = mismatches = None
        if owner is None or owner.teacher_logits is None:
            undefined |= dict.fromkeys(("teacher_of", "fidelity", "logit_standardization"), NO_TEACHERS)
        else:
            ask = (owner.teacher_logits, first.labels, temperature, ddof)
            one = following or Following.of(first.student_logits, *ask)
            both = one, Following.of(second.student_logits, *ask)
            mismatches = Mismatches.between(both[0].samples, both[1].samples, students, index)
        return cls(
            students=students,
            teacher_of=None if owner is None else owner.name,
            teacher_difference=difference,
            paired=Paired.from_logits(first.student_logits, second.student_logits, first.labels),
            calibration=(calibration, Calibration.from_logits(second.student_logits, second.labels)),
            following=both,
            mismatches=mismatches,
            undefined=undefined,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as data that JSON can hold."""
        both, fidelity, standardization = self.following, None, None
        if both is not None:
            summary = [one.summary(name) for one, name in zip(both, self.students, strict=True)]
            fidelity = [one.fidelity for one in both]
            standardization = {"summary": summary, "mismatches": self.mismatches}
        plain: dict[str, Any] = as_plain_data(
            {
                "students": self.students,
                "teacher_of": self.teacher_of,
                "teacher_difference": self.teacher_difference,
                "paired": self.paired,
                "calibration": self.calibration,
                "fidelity": fidelity,
                "logit_standardization": standardization,
                "undefined": self.undefined,
            }
        )
        return plain


def _teacher_difference(first: Answers, second: Answers) -> tuple[float | None, str]:
    teachers: list[Values] = [run.teacher_logits for run in (first, second) if run.teacher_logits is not None]
    if len(teachers) < 2:
        return None, "only one run has a teacher" if teachers else NO_TEACHERS
    one, other = read_logit_pair(teachers[0], f"teacher of {first.name}", teachers[1], f"teacher of {second.name}")
    return float(np.abs(one - other).max(initial=0)), ""


def _same_split(first: Answers, second: Answers) -> Integers | None:
    """The positions of the images in the data set's file, if known.

    Raises:
        UsageError: if the two runs answered other images.
    """
    names = f"{first.name} and {second.name}"
    one, _ = read_logit_pair(first.student_logits, first.name, second.student_logits, second.name)
    if not np.array_equal(read_labels(first.labels, "labels", one), read_labels(second.labels, "labels", one)):
        raise UsageError(f"{names} answered images with different labels; give the same split in the same order")
    own, others = (None if run.index is None else read_positions(run.index, len(one)) for run in (first, second))
    if own is not None and others is not None and not np.array_equal(own, others):
        raise UsageError(
            f"{names} answered different images ({int((own != others).sum())} of {len(own)}); give runs with equal "
            "data.split_seed, val_fraction and train_per_class"
        )
    return own if own is not None else others
