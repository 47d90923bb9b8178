"""Hinton's soft targets.

Shapes: B samples, K classes.
"""

import torch.nn.functional as F
from torch import Tensor

from kdlab.losses.base import LogitLoss, in_float32


class SoftTargets(LogitLoss):
    r"""Divergence of the softened class distributions, scaled back by the squared temperature.

    .. math:: T^2 \, \frac1B \sum_i \mathrm{KL}\big(\sigma(t_i / T) \,\|\, \sigma(s_i / T)\big)

    with student logits s, teacher logits t, natural logarithms. The gradient with respect to a student logit is
    (T / B) (p_s - p_t): T^2 keeps it of the same size as the label term's when T changes.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015, with the cross-entropy
    replaced by the divergence (the same gradient; the loss is 0 when student and teacher agree).

    Example:
        >>> import torch
        >>> loss = SoftTargets(temperature=2.0)
        >>> logits = torch.tensor([[2.0, 0.0, -2.0]])
        >>> loss(logits, logits + 5.0).abs() < 1e-6
        tensor(True)

    Args:
        temperature: divides the logits of both before the softmax; 1 leaves them, larger is softer. None for the
            method's, and without one 4.

    Raises:
        UsageError: if `temperature` is not a positive number.
    """

    temperature: float  # never None here

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        self.take_temperature(temperature, default=4.0)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the scaled divergence of ``[B, K]`` logits; `labels` is not used."""
        temperature = self.temperature
        student_log_p = F.log_softmax(in_float32(student) / temperature, dim=-1)
        teacher_log_p = F.log_softmax(in_float32(teacher) / temperature, dim=-1)
        divergence = F.kl_div(student_log_p, teacher_log_p, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def extra_repr(self) -> str:
        """Show the temperature when the loss is printed."""
        return f"temperature={self.temperature:g}"
