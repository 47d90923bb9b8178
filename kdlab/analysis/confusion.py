"""Which classes a network takes for which.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kdlab.analysis.inputs import Integers, Values, read_labels, read_logits, share
from kdlab.errors import UsageError


class ConfusedPair(NamedTuple):
    """One class taken for another.

    Attributes:
        label: the class that it is.
        answer: the class that it is taken for.
        samples: how often.
        share_of_label: `samples` / all samples of `label`, 0 ... 1.
    """

    label: int
    answer: int
    samples: int
    share_of_label: float


@dataclass(frozen=True, eq=False)
class Confusion:
    """Answers of one network to one split, by class.

    Attributes:
        n: samples.
        matrix: ``[K, K]`` samples, [label][answer].
        support: ``[K]`` samples of each class.
        accuracy: ``[K]`` share of each class that is answered correctly (its recall); None where it is absent.
        undefined: field that holds None -> why.
    """

    n: int
    matrix: Integers
    support: tuple[int, ...]
    accuracy: tuple[float | None, ...]
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_logits(cls, logits: Values, labels: Values) -> Confusion:
        """Count the answers of ``[N, K]`` logits to samples with ``[N]`` labels.

        Raises:
            UsageError: if shapes, labels or values do not fit.
        """
        z = read_logits(logits, "logits")
        truth = read_labels(labels, "labels", z)
        k = z.shape[1]
        return cls.from_matrix(np.bincount(truth * k + z.argmax(axis=1), minlength=k * k).reshape(k, k))

    @classmethod
    def from_matrix(cls, matrix: Integers) -> Confusion:
        """Derive all else from the ``[K, K]`` counts [label][answer]."""
        support: list[int] = matrix.sum(axis=1).tolist()
        absent = [c for c, samples in enumerate(support) if not samples]
        return cls(
            n=sum(support),
            matrix=matrix,
            support=tuple(support),
            accuracy=tuple(map(share, np.diag(matrix).tolist(), support)),
            undefined={"accuracy": f"no samples of class {', '.join(map(str, absent))}"} if absent else {},
        )

    def most_confused(self, most: int = 10) -> list[ConfusedPair]:
        """Return the most frequent errors, most frequent first, ties by class index; correct answers are none."""
        errors = self.matrix - np.diag(np.diag(self.matrix))
        order = np.argsort(-errors, axis=None, kind="stable")[:most]
        pairs = (divmod(int(cell), len(errors)) for cell in order)
        return [
            ConfusedPair(label, answer, int(errors[label, answer]), int(errors[label, answer]) / self.support[label])
            for label, answer in pairs
            if errors[label, answer] > 0
        ]

    def minus(self, other: Confusion) -> ConfusionDifference:
        """Compare two networks on the same split, for example the student minus the teacher.

        Raises:
            UsageError: if the splits differ.
        """
        if self.support != other.support:
            raise UsageError(
                f"the confusion matrices are of {self.n} and {other.n} samples with different labels; "
                "compare two networks on the same split"
            )
        accuracy = tuple(
            None if a is None or b is None else a - b for a, b in zip(self.accuracy, other.accuracy, strict=True)
        )
        return ConfusionDifference(self.matrix - other.matrix, accuracy, self.undefined)


@dataclass(frozen=True, eq=False)
class ConfusionDifference:
    """One network's confusion minus another's.

    Attributes:
        matrix: ``[K, K]`` samples, [label][answer]; each row sums to 0.
        accuracy: ``[K]`` difference of the per-class accuracies; None where a class is absent.
        undefined: field that holds None -> why.
    """

    matrix: Integers
    accuracy: tuple[float | None, ...]
    undefined: Mapping[str, str] = field(default_factory=dict)
