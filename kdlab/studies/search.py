"""The search of a variant, as its study file says: ranges instead of a grid, tried in rounds.

Each round is planned from the results of those before: see `kdlab.studies.sampler`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdlab.errors import UsageError
from kdlab.studies.sections import choices, count, mapping, only

DEFAULT_ROUNDS_OF = 4
OF_VALIDATION = "student.val."
DEFAULT_MAXIMIZE = f"{OF_VALIDATION}accuracy"
# what result.json says of a network that was not measured on the test images: validation, wrong training labels, size
NOT_TESTED = ("val", "noise", "parameters")

LOW_IS_GOOD = ("memorised_rate", "nll", "ece", "brier")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: a whole number, as `high`, for whole numbers alone.
        high: greater than `low`.
        log: drawn evenly on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Search:
    """What a search may try, and what for.

    Attributes:
        trials: settings that are tried, each with all seeds.
        rounds_of: trials that are planned together.
        maximize: key of result.json, of which the mean over the seeds is to be high.
        ranges: config key -> the numbers, or the values, that it may have.
    """

    trials: int
    rounds_of: int
    maximize: str
    ranges: Mapping[str, Range | tuple[Any, ...]]

    @property
    def logarithmic(self) -> tuple[str, ...]:
        """The keys that are drawn on a logarithmic scale."""
        return tuple(key for key, found in self.ranges.items() if isinstance(found, Range) and found.log)

    def corners(self) -> Iterator[Mapping[str, Any]]:
        """Settings in which each choice, and both ends of each range, appear: what can be checked before all trials."""
        ends = {key: (found.low, found.high) if isinstance(found, Range) else found
                for key, found in self.ranges.items()}  # fmt: skip
        for number in range(max(map(len, ends.values()))):
            yield {key: values[number % len(values)] for key, values in ends.items()}


def read_search(section: object, key: str) -> Search:
    """Read the section ``search`` of a variant.

    Raises:
        UsageError: for the first thing that is wrong, with its key.
    """
    part = mapping(section, key)
    only(part, ("trials", "rounds_of", "maximize", "ranges"), key)
    ranges = {name: _range(found, f"{key}.ranges.{name}") for name, found in mapping(part.get("ranges"), key).items()}
    if not ranges:
        raise UsageError(f"{key} has no ranges; give some: model.alpha: {{low: 0.0, high: 1.0}}")
    return Search(
        trials=count(part.get("trials"), f"{key}.trials"),
        rounds_of=count(part.get("rounds_of", DEFAULT_ROUNDS_OF), f"{key}.rounds_of"),
        maximize=_maximize(part.get("maximize", DEFAULT_MAXIMIZE), f"{key}.maximize"),
        ranges=ranges,
    )


def _maximize(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{key} is {value}, but expected is a key of result.json: {DEFAULT_MAXIMIZE}")
    parts = value.split(".")
    if parts[0] in ("student", "teacher") and (len(parts) < 2 or parts[1] not in NOT_TESTED):
        raise UsageError(
            f"{key} is {value}, which is measured on the test images: the best of many trials would be chosen by the "
            f"very images that are to judge it; maximize {DEFAULT_MAXIMIZE}"
        )
    if "test" in parts[1:] or parts[-1] in LOW_IS_GOOD:
        raise UsageError(
            f"{key} is {value}, which is measured on test images, or good when low; maximize {DEFAULT_MAXIMIZE}"
        )
    return value


def _range(section: object, key: str) -> Range | tuple[Any, ...]:
    if isinstance(section, list):
        return choices(section, key)
    if not isinstance(section, dict):
        raise UsageError(f"{key} is {section}, but expected is a range, {{low: 0.0, high: 1.0}}, or a list of values")
    only(section, ("low", "high", "log"), key)
    low, high = (_number(section.get(end), f"{key}.{end}") for end in ("low", "high"))
    log = section.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"{key}.log is {log}, but expected is true or false")
    if low >= high:
        raise UsageError(
            f"{key} goes from {low} to {high}; low must be below high, and a single value belongs to `set`"
        )
    if log and low <= 0:
        raise UsageError(
            f"{key}.low is {low}, but a logarithmic scale has positive numbers only; raise it, or drop log"
        )
    return Range(low, high, log)


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        # YAML takes 1e-4 for a word
        raise UsageError(f"{key} is {value}, but expected is a number, with a point before an exponent: 1.0e-4")
    return value
