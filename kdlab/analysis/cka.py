"""How similar two layers represent the same images: centred kernel alignment (CKA) with the linear kernel, unbiased.

Shapes: N samples, D_s and D_t features of the student's and the teacher's layer, feature maps flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kdlab.analysis.inputs import NO_SAMPLES, Floats, Values, read_features
from kdlab.errors import UsageError

CONSTANT = 1e-12  # a layer whose features vary by less than this part of their size says nothing of the image
FEWEST = 4  # samples: the unbiased estimate divides by N - 3


@dataclass(frozen=True)
class CKAMatrix:
    r"""Linear CKA of every student layer with every teacher layer.

    .. math:: \mathrm{HSIC}(K, L) / \sqrt{\mathrm{HSIC}(K, K) \, \mathrm{HSIC}(L, L)}

    of the Gram matrices K and L of both layers, with the unbiased HSIC: the plain one is biased upwards by far where
    layers are wide and samples few. It does not see rotations, shifts or a common scale of the features.

    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, 2019; unbiased as in Nguyen,
    Raghu & Kornblith, Do Wide and Deep Networks Learn the Same Things?, 2021.

    Attributes:
        n: samples.
        student_layers: names, from the input to the output.
        teacher_layers: names, from the input to the output.
        values: [student layer][teacher layer], at most 1; unrelated layers lie around 0, also slightly below. None
            where a layer is constant.
        undefined: field that holds None -> why.
    """

    n: int
    student_layers: tuple[str, ...]
    teacher_layers: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_features(cls, student: Mapping[str, Values], teacher: Mapping[str, Values]) -> CKAMatrix:
        """Compare the tapped ``[N, ...]`` features of student and teacher on the same N images.

        A thousand images are enough.

        Raises:
            UsageError: if a side has no layer, or features are not finite or of different numbers of samples.
        """
        if not student or not teacher:
            raise UsageError(
                "CKA compares layers, but no layer is tapped in the student or the teacher; name one of each"
            )
        rows = {f"student layer {name}": values for name, values in student.items()}
        columns = {f"teacher layer {name}": values for name, values in teacher.items()}
        n = _same_samples(rows | columns)
        patterns = {name: _pattern(read_features(values, name)) for name, values in (rows | columns).items()}
        values = tuple(tuple(_cosine(patterns[row], patterns[column]) for column in columns) for row in rows)
        silent = [name for name, pattern in patterns.items() if pattern is None]
        why = f"{', '.join(silent)}: the same for every sample, or every two samples equally far apart"
        if n < FEWEST:
            why = f"{n} samples, and unbiased CKA needs {FEWEST}" if n else NO_SAMPLES
        return cls(n, tuple(student), tuple(teacher), values, {"values": why} if silent else {})


def unbiased_centred(kernel: Floats) -> Floats:
    """Return ``[N, N]``, zero on the diagonal, whose product sums are N (N - 3) times the unbiased HSIC.

    Source: Song et al., Feature Selection via Dependence Maximization, 2012, in the form of Székely & Rizzo, Partial
    Distance Correlation with Methods for Dissimilarities, 2014 (U-centring). A layer is centred once for all pairs.

    Args:
        kernel: symmetric ``[N, N]``, N > 3; its diagonal does not count.
    """
    n = len(kernel)
    centred: Floats = kernel - np.diag(np.diag(kernel))
    rows = centred.sum(axis=1) / (n - 2)
    centred += rows.sum() / (n - 1) - rows[:, None] - rows
    np.fill_diagonal(centred, 0)
    return centred


def _pattern(features: Floats) -> Floats | None:
    """Which of the samples a layer finds alike, ``[N, N]`` of norm 1; None where it makes no difference."""
    if len(features) < FEWEST:
        return None
    centred = features - features.mean(axis=0, keepdims=True)  # for the sake of rounding
    if np.abs(centred).max() <= CONSTANT * np.abs(features).max():
        return None
    kernel = centred @ centred.T
    pattern = unbiased_centred(kernel)
    norm = float(np.linalg.norm(pattern))
    return pattern / norm if norm > CONSTANT * float(np.linalg.norm(kernel)) else None


def _cosine(one: Floats | None, other: Floats | None) -> float | None:
    return None if one is None or other is None else min(float(np.vdot(one, other)), 1.0)


def _same_samples(features: Mapping[str, Values]) -> int:
    (first, x), *others = features.items()
    for name, y in others:
        if len(y) != len(x):
            raise UsageError(
                f"{first} has {len(x)} samples but {name} has {len(y)}; give the features of the same images"
            )
    return len(x)
