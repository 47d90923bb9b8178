"""A logger that follows a run: it starts when the run has its folder, and hears at the end what became of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from kdlab.data import ImageData
from kdlab.methods import Method
from kdlab.run.folder import RunFolder


class Tracker(Logger, ABC):
    """A logger with files in the run's folder; what comes before `begin` and after `close` is not logged.

    `begin`, `conclude` and `close` are called in the first process only. They may raise: `guard` lets training go on.
    """

    def check_installed(self) -> None:
        """Refuse to be used without a package that is needed.

        Raises:
            UsageError: if one is missing.
        """

    @abstractmethod
    def begin(self, folder: RunFolder, step: int | None) -> None:
        """Follow the run in `folder`; its config.yaml is written, and metrics.csv has the steps before `step`.

        Args:
            folder: of the run.
            step: the first step of this process, above 0 in a resumed run; None if the run is over, and only figures
                that were found out later follow.
        """

    def conclude(self, trainer: Trainer, method: Method, data: ImageData, result: Mapping[str, Any]) -> None:
        """Hear how the run ended; student.safetensors and result.json are written.

        Args:
            trainer: has just tested.
            method: with the student that was tested.
            data: that it was tested on.
            result: content of result.json.
        """

    def close(self) -> None:
        """Finish the files."""


class NoExperiment:
    """Stands for the experiment of a tracker that follows no run: whatever it is asked to do, it does nothing."""

    def __getattr__(self, name: str) -> NoExperiment:
        return self

    def __call__(self, *_: object, **__: object) -> NoExperiment:
        """Do nothing; what is asked of the answer does nothing either, as in ``experiment.config.update(...)``."""
        return self


def numbers(figures: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Flatten to ``prefix/name/...`` -> number; texts, lists and what is not known have no place in a logger."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        key = f"{prefix}/{name}"
        if isinstance(value, Mapping):
            flat |= numbers(value, key)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[key] = value
    return flat
