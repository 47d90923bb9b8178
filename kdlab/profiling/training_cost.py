"""What a whole training cost: time, energy and multiply-adds."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Protocol, cast

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from kdlab.profiling.base import Reporter, require_student
from kdlab.profiling.energy_account import EnergyAccount
from kdlab.profiling.results import Measurement, NotMeasured
from kdlab.profiling.sharing import runs_per_device
from kdlab.profiling.training_macs import Counted, TrainingMACs, training_macs
from kdlab.types import Batch

log = logging.getLogger(__name__)

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
        runs_per_device: that may have shared the device and its time; 1 is this one alone.
        train_images: images that were trained on, each as often as it was; in an ensemble of sub-students, those of
            one of them.
        images_per_epoch: mean over the epochs; of a part of one, what a whole one would have.
        per_image: multiply-adds of one training image; None where they could not be counted.
        train_macs_per_epoch: student and teacher together; None where there is an upper bound only.
        train_macs_per_epoch_at_most: an upper bound instead, where a step reaches a part of the student only.
        macs_reason: why there are no multiply-adds, or an upper bound only; None where there are.
    """

    train_s: float
    train_energy_j: float | None
    train_watts: float | None
    reason: str | None
    meter: str | None
    runs_per_device: int
    train_images: int
    images_per_epoch: float
    per_image: TrainingMACs | None
    train_macs_per_epoch: float | None
    train_macs_per_epoch_at_most: float | None
    macs_reason: str | None

    def metrics(self) -> dict[str, float | None]:
        """Time, energy and multiply-adds."""
        names = ("train_s", "train_energy_j", "train_watts", "train_macs_per_epoch", "train_macs_per_epoch_at_most")
        return {name: getattr(self, name) for name in names}


def epochs_trained(trainer: Trainer) -> float:
    """Return how many epochs a training has taken so far, parts included."""
    # the last step of an epoch may have fewer batches
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return trainer.global_step / steps


class Costed(Protocol):
    """What a step of a method costs; `kdlab.methods.Method` is one."""

    streams: int

    @property
    def networks(self) -> list[nn.Module]:
        """Those that are trained."""

    @property
    def reaches_whole_student(self) -> bool:
        """Whether every step goes back through all of it."""

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return the teacher's networks, each with the share of the training images about which it was asked."""


class TrainingCost(Reporter):
    """Add up time and energy of a training, over all processes that worked on it one after the other.

    The energy is what the counter of the device says from the start of the training to its end, gross. Under DDP it
    is not measured: several processes may share a counter. What was spent between the last resume point and a kill
    is lost. A counter that fails costs the figure and not the training.
    """

    section = "training_cost"
    headline = ("train_s", "train_energy_j")

    def __init__(self) -> None:
        super().__init__()
        self._energy = EnergyAccount()
        self._spent_s = 0.0
        self._images = 0
        self._started: float | None = None
        self._last_read = 0.0
        self._counted: Counted = {}
        self._runs_per_device = runs_per_device()  # the most, over all processes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there will be something to measure."""
        require_student(type(self).__name__, trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read clock and counter."""
        if trainer.world_size > 1:
            self._energy.give_up(f"trained in {trainer.world_size} processes, which may share a counter")
        else:
            self._energy.open(pl_module.device)
        self._started = self._last_read = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count the images; now, so that whoever asks when the step has ended finds them counted."""
        self._images += len(batch.image) // cast("Costed", pl_module).streams * trainer.world_size

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        """Look at the counter before it can start again."""
        if time.monotonic() - self._last_read > READ_EVERY_S:
            self._energy.read()
            self._last_read = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read clock and counter for the last time."""
        self._energy.close()
        self._spent_s, self._started = self.seconds, None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the multiply-adds and report; also in a run that was stopped behind its last epoch."""
        if not trainer.is_global_zero or not self._images:
            return
        macs = self._count(trainer, pl_module)
        counted = macs if isinstance(macs, TrainingMACs) else None
        images_per_epoch = self._images / epochs_trained(trainer)
        macs_per_epoch = None if counted is None else counted.total * images_per_epoch
        bounded = _reaches_a_part(cast("Costed", pl_module))
        energy_j = None if self._energy.missing else self._energy.spent_mj / 1e3
        self.result = TrainingCostResult(
            train_s=self._spent_s,
            train_energy_j=energy_j,
            train_watts=None if energy_j is None else energy_j / self._spent_s,
            reason=self._energy.missing,
            meter=self._energy.meter,
            runs_per_device=self._runs_per_device,
            train_images=self._images,
            images_per_epoch=images_per_epoch,
            per_image=counted,
            train_macs_per_epoch=None if bounded else macs_per_epoch,
            train_macs_per_epoch_at_most=macs_per_epoch if bounded else None,
            macs_reason=macs.reason if isinstance(macs, NotMeasured) else bounded,
        )
        self.report(trainer)

    @property
    def seconds(self) -> float:
        """Time of the training so far."""
        return self._spent_s + (0.0 if self._started is None else time.monotonic() - self._started)

    @property
    def joules(self) -> float | NotMeasured:
        """Energy of the training so far, gross, from a fresh look at the counter."""
        self._energy.read()
        return NotMeasured(self._energy.missing) if self._energy.missing else self._energy.spent_mj / 1e3

    @property
    def images(self) -> int:
        """Images that were trained on so far."""
        return self._images

    def macs_per_image(self, trainer: Trainer, pl_module: LightningModule) -> float | NotMeasured:
        """Multiply-adds of one training image, teacher and backward passes included; an upper bound for FitNet.

        A mean over the training so far, in which a teacher that remembers computes less and less. Networks are counted
        once, so this may be asked in each step.
        """
        counted = self._count(trainer, pl_module)
        return counted.total if isinstance(counted, TrainingMACs) else counted

    def state_dict(self) -> dict[str, Any]:
        """Time and energy so far, for a run that is resumed."""
        self._energy.read()
        return {
            "seconds": self.seconds,
            "energy_mj": self._energy.spent_mj,
            "missing": self._energy.missing,
            "meter": self._energy.meter,
            "images": self._images,
            "runs_per_device": self._runs_per_device,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the account."""
        self._spent_s, self._images = state_dict["seconds"], state_dict["images"]
        self._energy.spent_mj, self._energy.missing = state_dict["energy_mj"], state_dict["missing"]
        self._energy.meter = state_dict["meter"]
        self._runs_per_device = max(self._runs_per_device, state_dict.get("runs_per_device", 1))

    def _count(self, trainer: Trainer, pl_module: LightningModule) -> TrainingMACs | NotMeasured:
        method = cast("Costed", pl_module)
        shape = trainer.datamodule.image_shape  # type: ignore[attr-defined]
        try:
            return training_macs(method.networks, method.asked_networks(), shape, self._counted)
        except Exception as error:  # as in Profiler.profile: a trained run must not be lost over a figure
            log.warning("the multiply-adds of a training image could not be counted: %s", error)
            return NotMeasured(f"{type(error).__name__}: {error}")


def _reaches_a_part(method: Costed) -> str | None:
    """Why the count of a backward pass through the whole student is an upper bound; None where it is exact."""
    if method.reaches_whole_student:
        return None
    return f"an upper bound: not every step of {type(method).__name__} goes back through the whole student"
