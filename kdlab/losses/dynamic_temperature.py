"""Dynamic temperature: each sample has its own temperatures, one for the teacher and one for the student.

Shapes: B samples, K classes.
"""

import torch.nn.functional as F
from torch import Tensor

from kdlab.losses.base import LogitLoss, in_float32

SMALLEST_MAGNITUDE = 1e-6  # logits that are all 0 would make the temperature 0


class DynamicTemperature(LogitLoss):
    r"""Soft targets whose temperatures make student and teacher equally sharp.

    .. math:: \frac1B \sum_i T^t_i T^s_i \, \mathrm{KL}\big(\sigma(t_i / T^t_i) \,\|\, \sigma(s_i / T^s_i)\big),
        \quad T^t_i = \frac{2 x_i}{x_i + y_i} T, \quad T^s_i = \frac{2 y_i}{x_i + y_i} T

    with teacher logits t, student logits s, and their largest magnitudes x and y in a sample. The sharper of the two
    gets the higher temperature, and the mean of both is T. The loss does not change when the student's logits of a
    sample are those of the teacher times a positive number: it is 0 then.

    Source: Wei & Bai, Dynamic Temperature Knowledge Distillation, arXiv 2404.12711, 2024. How sure this is: the paper
    measures sharpness by the logsumexp of the logits and wants it equal after division by :math:`T \pm \delta`; its
    solution for :math:`\delta` (formulas 4 and 5) uses the maximum norm, as here, and the authors' README says since
    that this step is not a correct derivation, though the results hold. Their code (JinYu1998/DTKD@388f7eb) takes
    the largest logit instead of the largest magnitude: the same unless the largest magnitude is a negative logit,
    where it could make a temperature negative. As in their code, gradients also flow through the temperatures, of
    which the paper says nothing. Their training adds 3 x this loss, 1 x `SoftTargets` and 1 x cross-entropy.

    Unlike other losses on logits, this one changes when all logits of a sample are shifted: it rests on logits whose
    mean over classes is near 0, as training with cross-entropy leaves it.

    Args:
        temperature: the mean T of both temperatures. None for the method's, and without one 4.

    Raises:
        UsageError: if `temperature` is not positive.
    """

    temperature: float  # never None here

    def __init__(self, temperature: float | None = None) -> None:
        super().__init__()
        self.take_temperature(temperature, default=4.0)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the scaled divergence of ``[B, K]`` logits; `labels` is not used."""
        student, teacher = in_float32(student), in_float32(teacher)
        student_size = student.abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_MAGNITUDE)
        teacher_size = teacher.abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_MAGNITUDE)
        student_temperature = 2 * self.temperature * student_size / (student_size + teacher_size)
        teacher_temperature = 2 * self.temperature * teacher_size / (student_size + teacher_size)
        student_log_p = F.log_softmax(student / student_temperature, dim=-1)
        teacher_log_p = F.log_softmax(teacher / teacher_temperature, dim=-1)
        divergence = F.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True)
        return (student_temperature * teacher_temperature * divergence).sum(dim=-1).mean()

    def extra_repr(self) -> str:
        """Show the temperature when the loss is printed."""
        return f"temperature={self.temperature:g}"
