"""Training until something is spent: time, energy or multiply-adds."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer

from kdlab.errors import UsageError
from kdlab.profiling.base import Reporter
from kdlab.profiling.energy_account import EnergyAccount
from kdlab.profiling.results import Measurement, NotMeasured
from kdlab.profiling.training_cost import TrainingCost, epochs_trained

log = logging.getLogger(__name__)

Resource = Literal["seconds", "joules", "macs"]
FIELDS = {"seconds": "train_s", "joules": "train_energy_j"}  # of a result.json's training_cost
JOULES_EVERY_S = 1.0  # a look at the counter is no part of a step
STEPS_BETWEEN_QUESTIONS = 8  # with several processes, which must agree: asking is a wait for all of them


@dataclass(frozen=True)
class BudgetResult(Measurement):
    """What a training was allowed and what it spent.

    Attributes:
        resource: seconds, joules or multiply-adds ("macs").
        amount: how much was allowed.
        spent: how much was spent, the steps included in which the budget ran out.
        used_up: whether the budget ended the training, or its last epoch did.
        epochs: how many were trained, parts included.
        max_epochs: how many there would have been.
    """

    resource: Resource
    amount: float
    spent: float
    used_up: bool
    epochs: float
    max_epochs: int | None

    def metrics(self) -> dict[str, float | None]:
        """The share of the budget that was spent."""
        return {"budget_share": self.spent / self.amount}


class Budget(Reporter):
    """End a training when it has spent what another one did, so that both can be compared at equal cost.

    The step in which the budget runs out is finished, the student validated as after an epoch. Several processes ask
    each other in every 8th step only. A schedule of the learning rate follows epochs: choose ``max_epochs`` so that it
    ends with the budget; the log says how many those are. Time and energy are those of `TrainingCost`: validation
    during the training counts.

    Args:
        resource: ``seconds``, ``joules`` (gross, from the device's counter), or ``macs``: multiply-adds of student and
            teacher, forward and backward.
        amount: how much may be spent.
        like: instead of an amount: the folder of a finished run that spent it.

    Raises:
        UsageError: unless one of `amount` and `like` is given and is usable; in training, if the resource cannot be
            measured here.
    """

    section = "budget"
    headline = ("spent",)

    def __init__(self, resource: Resource, amount: float | None = None, like: str | None = None) -> None:
        super().__init__()
        if (amount is None) == (like is None):
            raise UsageError(f"a budget has an amount or is like another run; amount is {amount}, like is {like}")
        self.resource: Resource = resource
        self.amount = _spent_by(Path(like), resource) if like is not None else amount or 0.0
        if not self.amount > 0:
            raise UsageError(f"the budget is {self.amount:g} {resource}, but it must be a positive number")
        self._used_up = self._ended = False
        self._joules, self._last_look = 0.0, 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that somebody keeps the account, before anything is written."""
        if stage == "fit":
            _account(trainer)
            if self.resource == "joules":
                found = EnergyAccount()
                found.open(trainer.strategy.root_device)
                if found.missing is not None:
                    raise _no_joules(NotMeasured(found.missing))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that multiply-adds can be counted; a run that the budget had ended takes no step more."""
        if self.resource == "macs":
            self._spent(trainer)
        if self._ended:
            self._look(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop after this step if the budget is used up."""
        last = batch_idx + 1 == trainer.num_training_batches  # steps with however many batches it has
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not last:
            return
        if trainer.world_size == 1 or trainer.global_step % STEPS_BETWEEN_QUESTIONS == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember for a resume that the student was validated after its last step."""
        self._ended = self._used_up

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and say which schedule would have fitted."""
        self.result = BudgetResult(
            self.resource, self.amount, self._spent(trainer), self._used_up, epochs_trained(trainer),
            trainer.max_epochs,
        )  # fmt: skip
        if not trainer.is_global_zero:
            return
        if not self._used_up:
            log.warning(
                "of a budget of %g %s only %g were spent in %s epochs; raise max_epochs for a comparison at equal cost",
                self.amount, self.resource, self.result.spent, trainer.max_epochs,
            )  # fmt: skip
        elif trainer.max_epochs and self.result.epochs < trainer.max_epochs - 0.5:
            log.warning(
                "the budget of %g %s was used up after %.1f of %d epochs; a learning-rate schedule made for all of "
                "them had not come to its end: set max_epochs to %d to have both end together",
                self.amount, self.resource, self.result.epochs, trainer.max_epochs, max(1, round(self.result.epochs)),
            )  # fmt: skip
        self.report(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Whether the budget has ended the training."""
        return {"ended": self._ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Know it again; whether it still does depends on an amount that may have been raised."""
        self._ended = self._used_up = state_dict["ended"]

    def _look(self, trainer: Trainer) -> None:
        over = self._spent(trainer) >= self.amount
        self._used_up = trainer.strategy.reduce_boolean_decision(over, all=False)
        trainer.should_stop = trainer.should_stop or self._used_up

    def _spent(self, trainer: Trainer) -> float:
        account = _account(trainer)
        if self.resource == "seconds":
            return account.seconds
        if self.resource == "macs":
            per_image = account.macs_per_image(trainer, trainer.lightning_module)
            if isinstance(per_image, NotMeasured):
                raise UsageError(f"there is a budget of macs, but they are {per_image}; choose seconds")
            return account.images * per_image
        if time.monotonic() - self._last_look > JOULES_EVERY_S:
            joules, self._last_look = account.joules, time.monotonic()
            if isinstance(joules, NotMeasured):
                raise _no_joules(joules)
            self._joules = joules
        return self._joules


def _no_joules(energy: NotMeasured) -> UsageError:
    return UsageError(f"there is a budget of joules, but energy is {energy}; choose seconds or macs")


def _account(trainer: Trainer) -> TrainingCost:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, TrainingCost):
            return callback
    raise UsageError("Budget reads the account of TrainingCost; leave --profile on, or add it to trainer.callbacks")


def _spent_by(folder: Path, resource: Resource) -> float:
    """Return what a finished run spent."""
    try:
        cost = json.loads((folder / "result.json").read_text(encoding="utf-8")).get("training_cost")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} is no finished run; name the folder of one") from error
    if not isinstance(cost, Mapping):
        raise UsageError(f"{folder} was run with --profile false and did not measure its training; name another run")
    if resource == "macs":
        per_epoch = cost.get("train_macs_per_epoch")
        spent = per_epoch and per_epoch * cost["train_images"] / cost["images_per_epoch"]
    else:
        spent = cost.get(FIELDS[resource])
    if not spent:
        reason = cost.get("macs_reason" if resource == "macs" else "reason")
        raise UsageError(f"{folder} did not measure {resource} ({reason}); choose another resource")
    return float(spent)
