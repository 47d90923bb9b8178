"""Relational knowledge distillation: distances of pairs and angles of triplets.

Shapes: B samples, D features of each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.losses.base import FeatureLoss, nonnegative
from kdlab.losses.distributed import gather_rows

SMALLEST_SQUARE = 1e-12  # squared distance under which two samples count as the same


class RelationalLoss(FeatureLoss):
    r"""Difference of the distances and of the angles between the samples of a batch.

    .. math:: w_d \, \frac{1}{B^2} \sum_{i,j} h\big(d^s_{ij}, d^t_{ij}\big)
        + w_a \, \frac{1}{B^3} \sum_{i,j,k} h\big(\cos^s_{jik}, \cos^t_{jik}\big)

    with h the smooth-L1 loss, d the distance of two samples divided by the mean over all pairs of different samples,
    and cos the cosine of the angle at sample i between j and k. A map is flattened to one row per sample; student
    and teacher may differ in size. Under DistributedDataParallel the batch is that of all processes. Two samples with
    the same features have no direction between them: their angles count 0, and neither gets a gradient from it.

    Memory grows with B^2 (B + D): prefer pooled features.

    Source: Park, Kim, Lu & Cho, Relational Knowledge Distillation, CVPR 2019. The weights are those of the authors;
    means are over all B^2 and B^3 entries, as in their code.

    Args:
        distance_weight: factor of the distances.
        angle_weight: factor of the angles.

    Raises:
        UsageError: if a weight is negative.
    """

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0) -> None:
        super().__init__()
        self.distance_weight = nonnegative("distance_weight", distance_weight)
        self.angle_weight = nonnegative("angle_weight", angle_weight)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of ``[B, C, H, W]`` or ``[B, D]`` features.

        Raises:
            UsageError: if the batch has one sample.
        """
        student_distances, student_cosines = _relations(gather_rows(student, "RelationalLoss"))
        teacher_distances, teacher_cosines = _relations(gather_rows(teacher, "RelationalLoss"))
        distance = F.smooth_l1_loss(student_distances, teacher_distances)
        angle = F.smooth_l1_loss(student_cosines, teacher_cosines)
        return self.distance_weight * distance + self.angle_weight * angle

    def extra_repr(self) -> str:
        """Show the weights when the loss is printed."""
        return f"distance_weight={self.distance_weight:g}, angle_weight={self.angle_weight:g}"


def _relations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distances ``[B, B]`` over their mean, and cosines ``[B, B, B]`` at the first sample between the other two.

    From differences, not from the Gram matrix, which would lose the digits of samples that are close together.
    """
    differences = rows[None] - rows[:, None]  # [B, B, D]: from the first sample to the second
    squares = differences.square().sum(dim=-1)  # [B, B]
    distances = squares.clamp_min(SMALLEST_SQUARE).sqrt()
    apart = (squares > SMALLEST_SQUARE)[:, :, None]
    directions = torch.where(apart, differences / distances[:, :, None], 0.0)
    distances = distances * ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    mean = distances.sum() / (len(rows) * (len(rows) - 1))
    return distances / mean, torch.bmm(directions, directions.transpose(1, 2))
