"""When profilers run, on what, and where their results go."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.profiling.isolation import isolated, noise_image
from kdlab.profiling.results import Measurement, NotMeasured

log = logging.getLogger(__name__)


class Reporter(Callback):
    """A callback with a result that goes to the loggers and into result.json.

    Attributes:
        section: key of the result in ``result.json``.
        headline: fields that are null, and metrics that are absent, when nothing was measured.
        result: the last measurement; None before the first.
    """

    section: ClassVar[str]
    headline: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.result: Measurement | NotMeasured | None = None

    def as_metrics(self) -> dict[str, float]:
        """Return ``profile/...`` keys and values for loggers; what was not measured is absent."""
        if not isinstance(self.result, Measurement):
            return {}
        return {f"profile/{name}": value for name, value in self.result.metrics().items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values; what was not measured is null, with a ``reason``."""
        if isinstance(self.result, Measurement):
            return self.result.as_dict()
        reason = "it has not run yet" if self.result is None else self.result.reason
        return {**dict.fromkeys(self.headline), "reason": reason}

    def report(self, trainer: Trainer) -> None:
        """Send the metrics to all loggers, and the reason to the log where there are none."""
        if isinstance(self.result, NotMeasured):
            log.info("%s: %s", self.section, self.result)
        metrics = self.as_metrics()
        for logger in trainer.loggers if metrics else []:
            logger.log_metrics(metrics, step=trainer.global_step)
            logger.save()


class Profiler(Reporter, ABC):
    """Measure one cost of the exported student when a test has ended.

    A subclass says what to measure, in `measure`. It gets a deep copy of the student in eval mode without hooks and
    inside its own random numbers: no teacher, regressor or hook counts, and training goes on as if nothing had
    happened. Under DDP the first process measures.
    """

    @abstractmethod
    def measure(self, network: nn.Module, image: Tensor) -> Measurement | NotMeasured:
        """Return the result of one network.

        Args:
            network: a copy that belongs to the profiler, in eval mode.
            image: ``[1, C, H, W]`` noise, of the network's type and on its device.
        """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be something to measure, before anything is trained."""
        require_student(type(self).__name__, trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the student and report."""
        if trainer.is_global_zero:
            self.profile(pl_module.student, trainer.datamodule.image_shape)  # type: ignore[arg-type, attr-defined]
            self.report(trainer)

    def profile(
        self, network: nn.Module, image_shape: tuple[int, int, int], device: torch.device | None = None
    ) -> Measurement | NotMeasured:
        """Measure a copy of `network` on images of ``(C, H, W)``, keep the result and return it.

        Args:
            network: stays as and where it is.
            image_shape: (C, H, W).
            device: where the copy is measured; where the network is by default.
        """
        try:
            with isolated(network, device) as exported:
                self.result = self.measure(exported, noise_image(exported, image_shape))
        except Exception as error:  # a network can do anything, and a trained run must not be lost over a figure
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            log.warning("%s of %s could not be measured: %s", self.section, type(network).__name__, reason)
            log.debug("where it failed", exc_info=True)
            self.result = NotMeasured(reason)
        return self.result


def require_student(name: str, trainer: Trainer, pl_module: LightningModule) -> None:
    """Check that there is a student and that the shape of its images is known.

    Raises:
        UsageError: if one of them is missing.
    """
    if not isinstance(getattr(pl_module, "student", None), nn.Module):
        raise UsageError(
            f"{name} measures the student of a method, but {type(pl_module).__name__} has none; "
            "call its network self.student, or take the callback out"
        )
    data = getattr(trainer, "datamodule", None)
    if not hasattr(data, "image_shape"):
        raise UsageError(
            f"{name} must know the shape of an image, but the data are {type(data).__name__}; "
            "use a data module with image_shape: (C, H, W), or take the callback out"
        )


def require_at_least(name: str, value: float, least: float, why: str) -> None:
    """Check an argument of a profiler.

    Raises:
        UsageError: if `value` is below `least`, or no number.
    """
    if not value >= least:
        raise UsageError(f"{name} is {value:g}, but it must be at least {least:g}: {why}")
