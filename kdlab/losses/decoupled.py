"""Decoupled knowledge distillation.

Shapes: B samples, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import LogitLoss, in_float32, nonnegative


class DecoupledKD(LogitLoss):
    r"""Soft targets in two parts with a weight each: is it the label's class, and if not, which other one.

    .. math:: T^2 \, (\alpha \, \mathrm{TCKD} + \beta \, \mathrm{NCKD})

    TCKD, of the target class, is the divergence of the pairs (p_y, 1 - p_y); NCKD, of the other classes, is the
    divergence of the distributions over the K - 1 other classes; both KL(teacher || student) at temperature T, means
    over the batch. Per sample KL = TCKD + (1 - p_y) NCKD with the teacher's p_y: soft targets give NCKD the less
    weight the surer the teacher is, and decoupling takes that away. With two classes NCKD is 0.

    Source: Zhao, Cui, Song, Qiu & Liang, Decoupled Knowledge Distillation, CVPR 2022. They train with weight 1 for
    the cross-entropy, and wrap this in a `LinearWarmup` of 20 epochs. Computed from log-probabilities of the other
    classes alone, where the authors' code subtracts 1000 from the logit of the target class.

    Args:
        temperature: divides the logits of both before the softmax. None for the method's, and without one 4.
        alpha: weight of TCKD.
        beta: weight of NCKD; the authors use 8, or 2 or 6 for some pairs of networks.

    Raises:
        UsageError: if `temperature` is not positive, or a weight is negative.
    """

    temperature: float  # never None here

    def __init__(self, temperature: float | None = None, alpha: float = 1.0, beta: float = 8.0) -> None:
        super().__init__()
        self.take_temperature(temperature, default=4.0)
        self.alpha = nonnegative("alpha", alpha)
        self.beta = nonnegative("beta", beta)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the weighted divergences of ``[B, K]`` logits.

        Raises:
            UsageError: if `labels` is not ``[B]`` class indices.
        """
        labels = _class_indices(labels)
        student_pair, student_others = _decouple(in_float32(student) / self.temperature, labels)
        teacher_pair, teacher_others = _decouple(in_float32(teacher) / self.temperature, labels)
        tckd = F.kl_div(student_pair, teacher_pair, reduction="batchmean", log_target=True)
        nckd = F.kl_div(student_others, teacher_others, reduction="batchmean", log_target=True)
        return self.temperature**2 * (self.alpha * tckd + self.beta * nckd)

    def extra_repr(self) -> str:
        """Show the settings when the loss is printed."""
        return f"temperature={self.temperature:g}, alpha={self.alpha:g}, beta={self.beta:g}"


def _decouple(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[B, 2]`` of (label's class, any other) and ``[B, K - 1]`` among the others."""
    columns = torch.arange(logits.shape[-1] - 1, device=logits.device)
    others = logits.gather(1, columns + (columns >= labels[:, None]))  # skip the label's column
    pair = torch.cat([logits.gather(1, labels[:, None]), others.logsumexp(dim=-1, keepdim=True)], dim=-1)
    return F.log_softmax(pair, dim=-1), F.log_softmax(others, dim=-1)


def _class_indices(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise UsageError("DecoupledKD got no labels, but it needs the class index of each image; choose a logit_loss "
                         "that needs none, for example SoftTargets")  # fmt: skip
    if labels.dim() != 1:
        raise UsageError(
            f"DecoupledKD got labels of shape {list(labels.shape)} (mixup or CutMix?), but it needs one class index "
            "per image; leave data.mixing out or choose another logit_loss, for example SoftTargets"
        )
    return labels
