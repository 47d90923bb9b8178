"""How similar two layers represent the same images: centred kernel alignment (CKA) with the linear kernel.

Shapes: N samples, D_s and D_t features of the student's and the teacher's layer, feature maps flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kdlab.analysis.inputs import NO_SAMPLES, Floats, Values, read_features
from kdlab.errors import UsageError

CONSTANT = 1e-12  # a layer whose features vary by less than this part of their size says nothing of the image
SMALLEST_BATCH = 4  # the unbiased estimate divides by N - 3


@dataclass(frozen=True)
class CKAMatrix:
    """Linear CKA of every student layer with every teacher layer.

    Attributes:
        n: samples.
        student_layers: names, from the input to the output.
        teacher_layers: names, from the input to the output.
        values: [student layer][teacher layer], 0 ... 1; None where a layer is constant.
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

        A thousand images are enough. With few samples and wide layers CKA is biased upwards: two unrelated
        layers do not reach 0. `MinibatchCKA` has no such bias.

        Raises:
            UsageError: if a side has no layer, or features are not finite or of different numbers of samples.
        """
        if not student or not teacher:
            raise UsageError(
                "CKA compares layers, but no layer is tapped in the student or the teacher; name one of each"
            )
        rows = {f"student layer {name}": values for name, values in student.items()}
        columns = {f"teacher layer {name}": values for name, values in teacher.items()}
        centred = {name: _centre(read_features(values, name)) for name, values in (rows | columns).items()}
        n = _same_samples(centred)
        own = {name: hsic(x, x) for name, x in centred.items()}
        values = tuple(
            tuple(_ratio(hsic(centred[row], centred[column]), own[row], own[column]) for column in columns)
            for row in rows
        )
        silent = [name for name, value in own.items() if value == 0]
        why = f"{', '.join(silent)}: the same for every sample" if n else NO_SAMPLES
        return cls(n, tuple(student), tuple(teacher), values, {"values": why} if silent else {})


def linear_cka(first: Values, second: Values) -> float | None:
    r"""Return the linear CKA of two ``[N, ...]`` features of the same samples, 0 ... 1; None if one is constant.

    .. math:: \|Y^T X\|_F^2 / (\|X^T X\|_F \, \|Y^T Y\|_F)

    of column-centred X and Y. It does not see rotations, shifts or a common scale of the features.

    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, 2019.

    Raises:
        UsageError: if features are not finite or of different numbers of samples.
    """
    x, y = _centre(read_features(first, "first features")), _centre(read_features(second, "second features"))
    _same_samples({"first features": x, "second features": y})
    return _ratio(hsic(x, y), hsic(x, x), hsic(y, y))


def hsic(x: Floats, y: Floats) -> float:
    """Return ||Y^T X||_F^2 of centred ``[N, D]`` features, by features or by samples, whichever is smaller."""
    if x.shape[1] * y.shape[1] <= len(x) ** 2:
        return float(np.square(y.T @ x).sum())
    return float(((x @ x.T) * (y @ y.T)).sum())


class MinibatchCKA:
    """Linear CKA from mini-batches, for splits whose features do not fit into memory.

    Averages the unbiased HSIC of the batches, so the expected value does not depend on the batch size; unrelated
    layers come out near 0, also slightly below.

    Source: Nguyen, Raghu & Kornblith, Do Wide and Deep Networks Learn the Same Things?, 2021; unbiased HSIC: Song et
    al., Feature Selection via Dependence Maximization, 2012.
    """

    def __init__(self) -> None:
        self.n = 0
        self._sums = np.zeros(3)  # over batches: HSIC of (x, y), (x, x), (y, y)

    def update(self, first: Values, second: Values) -> None:
        """Add ``[B, ...]`` features of the same B samples.

        Raises:
            UsageError: if the batch has fewer than 4 samples, or features are not finite or do not belong together.
        """
        x, y = _centre(read_features(first, "first features")), _centre(read_features(second, "second features"))
        batch = _same_samples({"first features": x, "second features": y})
        if batch < SMALLEST_BATCH:
            raise UsageError(
                f"the batch has {batch} samples, but unbiased CKA needs {SMALLEST_BATCH}; drop it or merge it"
            )
        kernels = _kernel(x), _kernel(y)
        pairs = (0, 1), (0, 0), (1, 1)
        self._sums += [unbiased_hsic(kernels[i], kernels[j]) for i, j in pairs]
        self.n += batch

    def compute(self) -> float | None:
        """Return the CKA of all batches, at most 1; None before the first and where a layer is constant."""
        return _ratio(*self._sums.tolist())


def unbiased_hsic(first: Floats, second: Floats) -> float:
    """Return the unbiased HSIC of two ``[N, N]`` kernels with zero diagonals, N > 3."""
    n = len(first)
    trace = (first * second).sum()
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2))
    rows = 2 * (first.sum(axis=0) @ second.sum(axis=0)) / (n - 2)
    return float((trace + sums - rows) / (n * (n - 3)))


def _kernel(x: Floats) -> Floats:
    kernel: Floats = x @ x.T
    np.fill_diagonal(kernel, 0)
    return kernel


def _centre(x: Floats) -> Floats:
    """Centre the columns; features that are constant up to rounding become exact zeros."""
    centred: Floats = x - x.mean(axis=0, keepdims=True) if len(x) else x
    varies = np.abs(centred).max(initial=0) > CONSTANT * np.abs(x).max(initial=0)
    return centred if varies else np.zeros_like(centred)


def _same_samples(features: Mapping[str, Floats]) -> int:
    (first, x), *others = features.items()
    for name, y in others:
        if len(y) != len(x):
            raise UsageError(
                f"{first} has {len(x)} samples but {name} has {len(y)}; give the features of the same images"
            )
    return len(x)


def _ratio(cross: float, first: float, second: float) -> float | None:
    if first <= 0 or second <= 0:
        return None
    return min(cross / float(np.sqrt(first) * np.sqrt(second)), 1.0)
