"""What the analysis reads: logits, labels and features, checked once and turned into float64.

Everything here is arithmetic on a whole split on the CPU, so float64 costs nothing and rounding never decides a
comparison. Shapes: N samples, K classes.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdlab.errors import UsageError

Values: TypeAlias = Tensor | NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

NO_SAMPLES = "the split has no samples"  # why a mean over it is undefined
ROW_SUM_TOLERANCE = 1e-2  # a softmax rounded to bfloat16 keeps its sum to 0.4%
LARGEST = float(np.finfo(np.float32).max)  # no network answers beyond it, and no square of it overflows float64


def read_logits(values: Values, name: str) -> Floats:
    """Return `values` as ``[N, K]`` float64 logits.

    Rows that are all non-negative and sum to 1 are taken for probabilities. A single row is not judged: logits
    such as (0.1, 0.4, 0.3, 0.2) do that by chance.

    Raises:
        UsageError: if they are no finite ``[N, K]`` numbers with K > 1, or look like probabilities.
    """
    logits = _read_numbers(values, name)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise UsageError(f"{name} has the shape {shape_of(logits)}; give [samples, classes] with 2 classes or more")
    if len(logits) > 1 and logits.min() >= 0 and np.abs(logits.sum(axis=1) - 1).max() <= ROW_SUM_TOLERANCE:
        raise UsageError(
            f"{name} looks like probabilities (no value is negative, every row sums to 1), but logits are expected; "
            "give the network's output before the softmax"
        )
    return logits


def read_logit_pair(first: Values, first_name: str, second: Values, second_name: str) -> tuple[Floats, Floats]:
    """Return two ``[N, K]`` logits of the same samples and classes.

    Raises:
        UsageError: as `read_logits`, or if the shapes differ.
    """
    one, other = read_logits(first, first_name), read_logits(second, second_name)
    if one.shape != other.shape:
        raise UsageError(
            f"{first_name} has the shape {shape_of(one)} but {second_name} has {shape_of(other)}; "
            "give the answers of both to the same split, in the same order"
        )
    return one, other


def read_labels(values: Values, name: str, logits: Floats) -> Integers:
    """Return `values` as ``[N]`` class indices that fit the ``[N, K]`` `logits`.

    Raises:
        UsageError: if they are no integers in 0 ... K - 1, or not one per sample.
    """
    labels = _to_numpy(values)
    n, num_classes = logits.shape
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{name} has the shape {shape_of(labels)} and the type {labels.dtype}; "
            "give one whole class index per sample, not class weights or probabilities"
        )
    if len(labels) != n:
        raise UsageError(f"{name} has {len(labels)} entries but the logits have {n} rows; give one label per sample")
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise UsageError(
            f"{name} holds {outside[0]}, but logits of {num_classes} classes have labels 0 to {num_classes - 1}; "
            "analyze a network and labels of the same data set"
        )
    return labels.astype(np.int64)


def read_positions(values: Values, n: int) -> Integers:
    """Return `values` as ``[N]`` positions of images in their file.

    Raises:
        UsageError: if they are no whole numbers, or not one per sample.
    """
    positions = _to_numpy(values)
    if positions.shape != (n,) or positions.dtype.kind not in "iu":
        raise UsageError(
            f"index has the shape {shape_of(positions)} and the type {positions.dtype}; give one whole position for "
            f"each of the {n} samples"
        )
    return positions.astype(np.int64)


def read_features(values: Values, name: str) -> Floats:
    """Return ``[N, ...]`` features as ``[N, D]``.

    Raises:
        UsageError: if they are no finite numbers, or have no dimension beside the samples.
    """
    features = _read_numbers(values, name)
    if features.ndim < 2 or 0 in features.shape[1:]:
        raise UsageError(f"{name} has the shape {shape_of(features)}; give [samples, ...] features of one layer")
    return features.reshape(len(features), int(np.prod(features.shape[1:])))


def read_temperature(temperature: float) -> float:
    """Return `temperature` if it can divide logits.

    Raises:
        UsageError: if it is not between 1e-6 and 1e6.
    """
    if not 1e-6 <= temperature <= 1e6:
        raise UsageError(f"temperature is {temperature:g}, but it must lie between 1e-6 and 1e6; 1 to 10 is usual")
    return float(temperature)


def share(part: int, whole: int) -> float | None:
    """Return part / whole, None where there is nothing to divide by."""
    return part / whole if whole else None


def mean(values: Floats) -> float | None:
    """Return the mean, None where there are no values."""
    return float(values.mean()) if values.size else None


def shape_of(array: NDArray[Any]) -> str:
    """The shape as a user reads it: [100, 10]."""
    return str(list(array.shape))


def _read_numbers(values: Values, name: str) -> Floats:
    array = _to_numpy(values)
    if array.dtype.kind not in "fiu":
        raise UsageError(f"{name} has the type {array.dtype}; give real numbers")
    numbers = array.astype(np.float64)
    bad = ~(np.abs(numbers) <= LARGEST)  # written so that NaN is bad too
    if bad.any():
        raise UsageError(
            f"{name} holds {numbers[bad][0]:g} ({int(bad.sum())} of {numbers.size} values are no finite float32); "
            "look for the step at which the run diverged"
        )
    return numbers


def _to_numpy(values: Values) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()  # numpy knows no bfloat16
    return np.asarray(values)
