"""What profilers return: a measurement, or the reason why there is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any


class Measurement(ABC):
    """Base of all results, each a frozen dataclass with the unit in every field's name."""

    @abstractmethod
    def metrics(self) -> dict[str, float | None]:
        """Return the figures for loggers and tables by their stable names; None where one was not measured."""

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass


@dataclass(frozen=True)
class NotMeasured:
    """There is no figure, and nobody guessed one.

    Attributes:
        reason: why, in words for the user.
    """

    reason: str

    def __str__(self) -> str:
        return f"not measured ({self.reason})"
