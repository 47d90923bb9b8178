"""Similarity-preserving distillation.

Shapes: B samples.
"""

import torch
from torch import Tensor

from kdlab.losses.base import FeatureLoss
from kdlab.losses.distributed import gather_rows
from kdlab.losses.rows import unit_rows


class SimilarityLoss(FeatureLoss):
    r"""Difference of the similarities between the samples of a batch.

    .. math:: \frac{1}{B^2} \|\tilde G_s - \tilde G_t\|_F^2, \quad G = F F^\top

    with one row of F per sample (a map is flattened), and :math:`\tilde G` the matrix G with rows of length 1. The
    features of student and teacher may differ in size. Under DistributedDataParallel the batch is that of all
    processes. A sample whose features are all 0 has no similarities: its row is 0, without gradient.

    Source: Tung & Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019; benchmarks weight it by 3000.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of ``[B, C, H, W]`` or ``[B, D]`` features.

        Raises:
            UsageError: if the batch has one sample.
        """
        return (_similarities(teacher) - _similarities(student)).square().mean()


def _similarities(features: Tensor) -> Tensor:
    rows = gather_rows(features, "SimilarityLoss")
    return unit_rows(torch.mm(rows, rows.T))
