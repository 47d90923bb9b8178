"""A loss whose weight grows over the first epochs."""

from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import LogitLoss


class LinearWarmup(LogitLoss):
    """Another loss times min(epoch / epochs, 1), with epochs counted from 1.

    With 20 epochs the first counts 1/20, the 20th and all later ones count in full. The factor is a function of the
    epoch alone, so a checkpoint holds nothing of it.

    Source: the authors' code of Decoupled Knowledge Distillation (Zhao et al., CVPR 2022), with 20 epochs.

    Args:
        loss: the loss that is scaled.
        epochs: the first epoch, counted from 1, in which the loss counts in full.

    Raises:
        UsageError: if `epochs` is less than 1.
    """

    def __init__(self, loss: LogitLoss, epochs: int = 20) -> None:
        super().__init__()
        if epochs < 1:
            raise UsageError(
                f"epochs is {epochs}, but a warm-up lasts 1 epoch or more; leave LinearWarmup out for none"
            )
        self.loss = loss
        self.temperature_given = loss.temperature_given
        self.epochs = epochs
        self.factor = 1 / epochs

    @property
    def temperature(self) -> float | None:
        """Temperature of the loss that is scaled; None where that has no single one."""
        return self.loss.temperature

    @temperature.setter
    def temperature(self, temperature: float | None) -> None:
        self.loss.temperature = temperature

    def set_epoch(self, epoch: int) -> None:
        """Set the factor of this epoch, counted from 0, and tell the inner loss."""
        self.factor = min((epoch + 1) / self.epochs, 1.0)
        self.loss.set_epoch(epoch)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the inner loss times the factor of the current epoch."""
        loss: Tensor = self.loss(student, teacher, labels)
        return self.factor * loss

    def extra_repr(self) -> str:
        """Show the length of the warm-up when the loss is printed."""
        return f"epochs={self.epochs}"
