"""Multi-level logit distillation: samples, pairs of samples, pairs of classes, at several temperatures.

Shapes: B samples, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import LogitLoss, in_float32, nonnegative, positive_temperature, without_autocast
from kdlab.losses.distributed import gather_batch


class MultiLevelKD(LogitLoss):
    r"""Soft targets at several temperatures, with the similarity of samples and the correlation of classes.

    .. math:: \sum_T \Big(
        w_i \frac{T^2}{B} \sum_i a_i \, \mathrm{KL}(p^t_i \| p^s_i)
        + w_b \frac1B \sum_{i,j} a_i \big(P^t {P^t}^\top - P^s {P^s}^\top\big)_{ij}^2
        + w_c \frac1K \sum_{k,l} c_k \big({P^t}^\top P^t - {P^s}^\top P^s\big)_{kl}^2 \Big)

    where P is ``[B, K]``, the softmax of logits divided by T. The masks keep what the teacher knows least about: a_i
    is 1 for the samples whose largest probability (at T = 1) is not above the `quantile` of the batch, c_k for the
    classes whose probabilities, summed over the batch, are not above theirs. `quantile` 1 keeps all.

    Under DistributedDataParallel the second and third term and both masks see the samples of all processes.

    Source: Jin, Wang & Lin, Multi-Level Logit Distillation, CVPR 2023, for the three levels and the temperatures.
    The masks are in the authors' code (Jin-Ying/Multi-Level-Logit-Distillation@6327e73), where they multiply a loss
    that is already averaged, so that they only halve it; here they choose samples and classes. The authors apply
    masks to one of two augmented views, and train with cross-entropy on both; one view is what this loss is given.

    Args:
        temperatures: one term for each.
        quantile: share of samples, and of classes, that count, the least certain first; the authors' is 0.5.
        instance_weight: factor of the term of single samples.
        batch_weight: factor of the term of pairs of samples.
        class_weight: factor of the term of pairs of classes; it grows with the square of the batch size.

    Raises:
        UsageError: if there is no temperature or one is not positive, `quantile` is no share, or a weight is negative.
    """

    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        quantile: float = 0.5,
        instance_weight: float = 1.0,
        batch_weight: float = 1.0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperatures:
            raise UsageError("temperatures is empty, but it must name at least one, for example [2, 3, 4, 5, 6]")
        if not 0 < quantile <= 1:
            raise UsageError(f"quantile is {quantile:g}, but it is the share of samples that count: above 0, at most 1")
        self.temperatures = tuple(positive_temperature(temperature) for temperature in temperatures)
        self.quantile = quantile
        self.instance_weight = nonnegative("instance_weight", instance_weight)
        self.batch_weight = nonnegative("batch_weight", batch_weight)
        self.class_weight = nonnegative("class_weight", class_weight)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``[B, K]`` logits; `labels` is not used."""
        student, teacher = in_float32(student), in_float32(teacher)
        with without_autocast(student):
            probabilities = F.softmax(teacher.detach(), dim=-1)
            confidence = probabilities.amax(dim=-1)
            all_confidence, all_probabilities = gather_batch(confidence), gather_batch(probabilities)
            bound = all_confidence.quantile(self.quantile)
            mass = all_probabilities.sum(dim=0)
            uncertain_classes = mass <= mass.quantile(self.quantile)
            all_student, all_teacher = gather_batch(student), gather_batch(teacher)
            loss = student.new_zeros(())
            for temperature in self.temperatures:
                divergence = _divergence(student / temperature, teacher / temperature)
                loss = loss + self.instance_weight * temperature**2 * (divergence * (confidence <= bound)).mean()
                student_p = F.softmax(all_student / temperature, dim=-1)
                teacher_p = F.softmax(all_teacher / temperature, dim=-1)
                pairs = _difference_of_products(student_p, teacher_p, all_confidence <= bound)
                loss = loss + self.batch_weight * pairs
                loss = loss + self.class_weight * _difference_of_products(student_p.T, teacher_p.T, uncertain_classes)
            return loss

    def extra_repr(self) -> str:
        """Show the settings when the loss is printed."""
        temperatures = ", ".join(f"{temperature:g}" for temperature in self.temperatures)
        return (
            f"temperatures=[{temperatures}], quantile={self.quantile:g}, instance_weight={self.instance_weight:g}, "
            f"batch_weight={self.batch_weight:g}, class_weight={self.class_weight:g}"
        )


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of each sample, ``[B]``."""
    student_log_p, teacher_log_p = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    return F.kl_div(student_log_p, teacher_log_p, reduction="none", log_target=True).sum(dim=-1)


def _difference_of_products(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of the products of all pairs of rows, summed over the masked rows, per row."""
    difference = torch.mm(teacher, teacher.T) - torch.mm(student, student.T)
    return (difference.square().sum(dim=-1) * mask).mean()
