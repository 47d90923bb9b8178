"""How metrics and their numbers are shown: in words and units, with as many decimals as say something."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdlab.studies.statistics import Summary

SHARES = ("accuracy", "top5", "agreement", "corrected_rate", "memorised_rate")  # shown in percent
OF_PERCENT = 2  # decimals: a hundredth of a percent is one image of 10,000
OF_INTERVAL = 2  # significant digits of a half width
ALONE = 4  # significant digits of a number without an interval
FLOAT32 = 7  # significant digits that results have at most


def scale(metric: str) -> tuple[float, str]:
    """Factor and unit in which a metric is shown."""
    name = metric.rpartition(".")[2].removeprefix("noise_")  # `analyze` calls the rates so
    return (100.0, " %") if name in SHARES else (1.0, "")


def short_name(metric: str) -> str:
    """A metric in few words: ``student.test.accuracy`` is ``test accuracy``."""
    return metric.removeprefix("student.").replace(".", " ").replace("_", " ")


def single(value: float, metric: str = "") -> str:
    """A number without an interval."""
    factor, unit = scale(metric)
    return f"{factor * value:.{OF_PERCENT if unit else _decimals(value, ALONE)}f}"


def mean_and_half_width(summary: Summary, metric: str) -> tuple[str, str | None]:
    """Both with the same decimals: as many as the interval deserves."""
    if summary.half_width is None:
        return single(summary.mean, metric), None
    factor, unit = scale(metric)
    decimals = _decimals(summary.half_width, OF_INTERVAL) if summary.half_width else _decimals(summary.mean, ALONE)
    if summary.mean:  # equal runs may differ by rounding, which is no interval to show
        decimals = min(decimals, _decimals(summary.mean, FLOAT32))
    decimals = OF_PERCENT if unit else decimals
    return f"{factor * summary.mean:.{decimals}f}", f"{factor * summary.half_width:.{decimals}f}"


def _decimals(value: float, digits: int) -> int:
    """Decimals with which a number shows at least so many significant digits."""
    if value == 0 or not math.isfinite(value):
        return digits
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))
