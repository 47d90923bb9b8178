"""Which optimizer a method trains with, and the schedule of its learning rate: the same for all methods."""

from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from kdlab.errors import UsageError

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Optimization(LightningModule):
    """One optimizer over all that is trained, and a schedule that takes a step after each epoch.

    Attributes:
        optimizer_factory: parameters -> optimizer.
        lr_scheduler_factory: optimizer -> schedule; None keeps the learning rate.
    """

    optimizer_factory: OptimizerFactory
    lr_scheduler_factory: SchedulerFactory | None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over everything that requires gradients; a frozen teacher does not.

        Raises:
            UsageError: if an argument of optimizer or schedule is out of its range, or the schedule watches a metric.
        """
        try:
            optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
        except ValueError as error:
            raise UsageError(f"model.optimizer: {error}; see the optimizer's documentation for its range") from error
        if self.lr_scheduler_factory is None:
            return optimizer
        try:
            scheduler = self.lr_scheduler_factory(optimizer)
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            raise _wrong_schedule(error) from error
        if isinstance(scheduler, ReduceLROnPlateau):
            raise UsageError(
                "model.lr_scheduler is ReduceLROnPlateau, which needs a metric to watch, but schedules here know the "
                "epoch alone; choose another one, for example torch.optim.lr_scheduler.CosineAnnealingLR"
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # noqa: ANN401 (Lightning's own)
        """Take a step of the schedule.

        Raises:
            UsageError: if the schedule cannot go on.
        """
        try:
            super().lr_scheduler_step(scheduler, metric)
        except (ValueError, ArithmeticError) as error:
            raise _wrong_schedule(error) from error


def _wrong_schedule(error: Exception) -> UsageError:
    reason = f"{type(error).__name__}: {error}"
    return UsageError(f"model.lr_scheduler: {reason}; see the schedule's documentation for the range of its arguments")
