"""What a whole training cost: time, energy and multiply-adds."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from kdlab.profiling.base import Reporter, log, require_student
from kdlab.profiling.meters import Meter, find_meter
from kdlab.profiling.results import Measurement, NotMeasured
from kdlab.profiling.training_macs import TrainingMACs, training_macs
from kdlab.types import Batch

READ_EVERY_S = 60.0  # a processor's counter starts again after half an hour or more


@dataclass(frozen=True)
class TrainingCostResult(Measurement):
    """Cost of a training, validation during it included.

    Attributes:
        train_s: seconds.
        train_energy_j: gross, from the device's counter; None where it was not measured.
        train_watts: mean power; None where it was not measured.
        reason: why there is no energy; None where there is.
        meter: the counter; None without one.
        train_images: images that were trained on, each as often as it was; in an ensemble of sub-students, those of
            one of them.
        images_per_epoch: mean over the epochs.
        per_image: multiply-adds of one training image; None where they could not be counted.
        train_macs_per_epoch: student and teacher together.
        macs_reason: why there are no multiply-adds; None where there are.
    """

    train_s: float
    train_energy_j: float | None
    train_watts: float | None
    reason: str | None
    meter: str | None
    train_images: int
    images_per_epoch: float
    per_image: TrainingMACs | None
    train_macs_per_epoch: float | None
    macs_reason: str | None

    def metrics(self) -> dict[str, float | None]:
        """Time, energy and multiply-adds."""
        names = ("train_s", "train_energy_j", "train_watts", "train_macs_per_epoch")
        return {name: getattr(self, name) for name in names}


class TrainingCost(Reporter):
    """Add up time and energy of a training, over all processes that worked on it one after the other.

    The energy is what the counter of the device says from the start of the training to its end, gross. Under DDP it
    is not measured: several processes may share a counter. What was spent between the last resume point and a kill
    is lost.
    """

    section = "training_cost"
    headline = ("train_s", "train_energy_j")

    def __init__(self) -> None:
        super().__init__()
        self.meter: Meter | NotMeasured = NotMeasured("the training has not started")
        self._spent_s, self._spent_mj = 0.0, 0.0
        self._missing: str | None = None  # why the energy of some part is not known
        self._images = 0
        self._started: tuple[float, float] | None = None  # clock and counter
        self._last_read = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be something to measure."""
        require_student(type(self).__name__, trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read clock and counter."""
        if trainer.world_size > 1:
            self.meter = NotMeasured(f"trained in {trainer.world_size} processes, which may share a counter")
        else:
            self.meter = find_meter(pl_module.device)
        if isinstance(self.meter, NotMeasured):
            self._missing = self._missing or self.meter.reason
        self._started = time.monotonic(), self._counter()
        self._last_read = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Count the images, and look at the counter before it can start again."""
        self._images += len(batch.image) // _streams(pl_module) * trainer.world_size
        if time.monotonic() - self._last_read > READ_EVERY_S:
            self._counter()
            self._last_read = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read clock and counter, count the multiply-adds, report."""
        self._spent_s, self._spent_mj = self._spent()
        self._started = None
        if not trainer.is_global_zero:
            return
        macs = self._count(trainer, pl_module)
        counted = macs if isinstance(macs, TrainingMACs) else None
        per_epoch = self._images / max(trainer.current_epoch, 1)
        measured = self._missing is None
        self.result = TrainingCostResult(
            train_s=self._spent_s,
            train_energy_j=self._spent_mj / 1e3 if measured else None,
            train_watts=self._spent_mj / 1e3 / self._spent_s if measured else None,
            reason=self._missing,
            meter=None if isinstance(self.meter, NotMeasured) else self.meter.name,
            train_images=self._images,
            images_per_epoch=per_epoch,
            per_image=counted,
            train_macs_per_epoch=None if counted is None else counted.total * per_epoch,
            macs_reason=macs.reason if isinstance(macs, NotMeasured) else None,
        )
        self.report(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Time and energy so far, for a run that is resumed."""
        seconds, energy = self._spent()
        return {"seconds": seconds, "energy_mj": energy, "missing": self._missing, "images": self._images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the account."""
        self._spent_s, self._spent_mj = state_dict["seconds"], state_dict["energy_mj"]
        self._missing, self._images = state_dict["missing"], state_dict["images"]

    def _counter(self) -> float:
        return 0.0 if isinstance(self.meter, NotMeasured) else self.meter.energy_mj()

    def _spent(self) -> tuple[float, float]:
        if self._started is None:
            return self._spent_s, self._spent_mj
        clock, counter = self._started
        return self._spent_s + time.monotonic() - clock, self._spent_mj + self._counter() - counter

    def _count(self, trainer: Trainer, pl_module: LightningModule) -> TrainingMACs | NotMeasured:
        shape = trainer.datamodule.image_shape  # type: ignore[attr-defined]
        try:
            return training_macs(_trained(pl_module), _teachers(pl_module), shape)
        except Exception as error:  # as in Profiler.profile: a trained run must not be lost over a figure
            log.warning("the multiply-adds of a training image could not be counted: %s", error)
            return NotMeasured(f"{type(error).__name__}: {error}")


def _streams(method: LightningModule) -> int:
    """How many sub-students get a batch of their own in each step."""
    streams: int = getattr(method, "streams", 1)
    return streams


def _trained(method: LightningModule) -> list[nn.Module]:
    """The student, and peers that learn along with it."""
    return [cast("nn.Module", method.student), *cast("Iterable[nn.Module]", getattr(method, "peers", ()))]


def _teachers(method: LightningModule) -> list[nn.Module]:
    """Each teacher as often as one position of the batch asks it: once for each sub-student."""
    own = cast("nn.Module | None", getattr(method, "teacher", None))
    if own is not None:
        return [own] * _streams(method)
    members = cast("Iterable[LightningModule]", getattr(method, "methods", ()))
    return [teacher for member in members for teacher in _teachers(member)]
