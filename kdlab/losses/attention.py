"""Attention transfer: where the network looks.

Shapes: B samples, C channels, H x W pixels of a feature map.
"""

import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import FeatureLoss
from kdlab.losses.rows import unit_rows


class AttentionLoss(FeatureLoss):
    r"""Mean squared difference of attention maps.

    .. math:: \frac{1}{B H W} \sum \big(Q_s - Q_t\big)^2, \quad Q = \frac{A}{\|A\|_2},
        \quad A = \frac1C \sum_c F_c^2

    with feature maps F; A is one ``[H, W]`` map per sample and does not depend on the number of channels. If the
    maps differ in size, the features of the larger are average-pooled to the size of the smaller first. A map of
    zeros looks nowhere: Q is 0, without gradient.

    Source: Zagoruyko & Komodakis, Paying More Attention to Attention, ICLR 2017. The paper's formula sums norms with
    a weight of beta / 2; this is the mean of squares of the authors' code and of benchmarks, which weight it by 1000.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of ``[B, C, H, W]`` maps.

        Raises:
            UsageError: if a side is not a map.
        """
        for role, features in (("student", student), ("teacher", teacher)):
            if features.dim() != 4:
                raise UsageError(
                    f"AttentionLoss got {role} features of shape {list(features.shape)}, but it needs maps "
                    "[batch, channels, height, width]; choose a layer before the pooling"
                )
        size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        return F.mse_loss(_attention(student, size), _attention(teacher, size))


def _attention(features: Tensor, size: tuple[int, int]) -> Tensor:
    """One row of length 1 per sample, ``[B, H * W]``."""
    pooled = F.adaptive_avg_pool2d(features, size)
    return unit_rows(pooled.square().mean(dim=1).flatten(start_dim=1))
