"""A student beside its teacher: fidelity, and what standardized logits change in it.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdlab.analysis.fidelity import Fidelity
from kdlab.analysis.inputs import Values
from kdlab.analysis.logit_standardization import SampleDivergences, StandardizationSummary


@dataclass(frozen=True, eq=False)
class Following:
    """How closely a student follows a teacher.

    Attributes:
        fidelity: over the split.
        samples: by sample, at T = 1.
    """

    fidelity: Fidelity
    samples: SampleDivergences

    @classmethod
    def of(cls, student: Values, teacher: Values, labels: Values, temperature: float, ddof: int) -> Following:
        """Compare ``[N, K]`` logits of both on samples with ``[N]`` labels.

        Raises:
            UsageError: if shapes, labels or values do not fit together.
        """
        fidelity = Fidelity.from_logits(student, teacher, labels, temperature)
        return cls(fidelity, SampleDivergences.from_logits(student, teacher, labels, ddof=ddof))

    def summary(self, student: str) -> StandardizationSummary:
        """Return the means of the divergences under the student's name."""
        return StandardizationSummary.of(student, self.samples)
