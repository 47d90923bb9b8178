"""The losses of a training: looked at in each step, averaged over the epoch, written to the loggers.

Shapes: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from lightning.pytorch import LightningModule
from torch import Tensor

from kdlab.errors import NumericalError
from kdlab.methods.checks import check_finite
from kdlab.methods.finite import LossWatch
from kdlab.metrics import EpochMeans
from kdlab.types import Batch, Outputs

if TYPE_CHECKING:
    from kdlab.methods.base import Method


class StepLoss(NamedTuple):
    """The loss of one batch, and what it is made of.

    Attributes:
        total: the sum of the terms, with its graph.
        terms: scalars by name, already weighted.
        accuracy: share of right answers in [0, 1]; of mixed images the larger part counts.
        student: what the student said; ``logits`` ``[B, K]``.
        teacher: what its teacher said; None where there is none.
    """

    total: Tensor
    terms: dict[str, Tensor]
    accuracy: Tensor
    student: Outputs
    teacher: Outputs | None


class TrainingLog(LightningModule):
    """What is written about the steps and epochs of a training.

    Attributes:
        train_means: of the losses in the unfinished epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train_means = EpochMeans()
        self._watch = LossWatch()

    def record_step(self, loss: StepLoss, batch: Batch, batch_idx: int) -> None:
        """Look at the losses of a step, add them to the means of the epoch, and log them where it is their turn.

        Raises:
            NotFiniteError: for the first step with a loss that is not finite, on a GPU some steps later.
        """
        # the terms first: when one is no number, it is named rather than the sum
        terms = {f"{name}_loss": term for name, term in loss.terms.items()}
        values = {**terms, "loss": loss.total, "accuracy": loss.accuracy}
        self.train_means.add(values, len(batch.label))
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it by a connector
        last = batch_idx + 1 == self.trainer.num_training_batches
        steps = last or (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0  # of those that a step accumulates
        log_now = every > 0 and (self.global_step + 1) % every == 0 and steps
        if not log_now and self.device.type not in ("cpu", "cuda"):
            return  # reading a value would make the accelerator wait
        self._watch.add(self.global_step, self.current_epoch, batch, values)
        read = self._watch.look(cast("Method", self), wait=log_now, here=(loss.student, loss.teacher))
        if log_now:
            self.log("loss", read["loss"], prog_bar=True, logger=False)
            self._write_log({f"train/{name}_step": value for name, value in read.items()}, step=self.global_step)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch.

        Raises:
            NumericalError: if one of them, or the loss of a step, is not finite.
        """
        self._watch.look(cast("Method", self), wait=True)
        means = {f"train/{name}": float(value) for name, value in self.train_means.compute().items()}
        check_finite(means, f"the mean over epoch {self.current_epoch}")
        self.log_dict(means, logger=False, sync_dist=False)
        self._write_log(means, step=self.global_step - 1)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics; answers that are no numbers are traced back to the step that made the weights so.

        Raises:
            NumericalError: if the student's answers are no finite numbers.
        """
        try:
            super().on_validation_epoch_end()
        except NumericalError:
            if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
                self._watch.look_at_weights(cast("Method", self), self.state_dict())
            raise

    def on_train_end(self) -> None:
        """Let the last batches go."""
        self._watch.forget()

    def _write_log(self, values: Mapping[str, float], step: int) -> None:
        """Write to the loggers now.

        `self.log` writes after the resume point of this step, and a kill in between would lose the row for good.
        """
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=step)
            logger.save()
