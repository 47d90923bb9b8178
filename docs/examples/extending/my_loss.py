"""A logit loss: mean absolute difference of the two softened distributions."""

from torch import Tensor

from kdlab.losses import LogitLoss


class Absolute(LogitLoss):
    """T x mean over samples of the sum over classes of |p_teacher - p_student|.

    Args:
        temperature: divides the logits of both. None for the method's, and without one 2.
    """

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        self.take_temperature(temperature, default=2.0)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``[B, K]`` logits."""
        p_student, p_teacher = ((logits.float() / self.temperature).softmax(dim=-1) for logits in (student, teacher))
        return self.temperature * (p_teacher - p_student).abs().sum(dim=-1).mean()
