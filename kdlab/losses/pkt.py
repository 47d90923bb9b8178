"""Probabilistic knowledge transfer.

Shapes: B samples.
"""

import torch
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import FeatureLoss
from kdlab.losses.distributed import gather_rows
from kdlab.losses.rows import unit_rows


class PKTLoss(FeatureLoss):
    r"""Divergence of the probabilities with which samples of a batch pick each other as neighbours.

    .. math:: \frac{1}{B^2} \sum_{i,j} p_{j|i} \ln \frac{p_{j|i} + \epsilon}{q_{j|i} + \epsilon},
        \quad p_{j|i} = \frac{K_{ij}}{\sum_k K_{ik}}, \quad K_{ij} = \frac{\cos(x_i, x_j) + 1}{2}

    with p from the teacher's features and q from the student's. A map is flattened to one row per sample; student and
    teacher may differ in size. Under DistributedDataParallel the batch is that of all processes.

    Source: Passalis & Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018. As in
    the authors' code (and unlike the paper) the sums include i = j, and the mean is over B^2 entries, which is why
    benchmarks weight it by 30000. A sample whose features are all 0 has the cosine 0 with all others, and no gradient.

    Args:
        eps: keeps the logarithm finite where two samples point in opposite directions.

    Raises:
        UsageError: if `eps` is not positive.
    """

    def __init__(self, eps: float = 1e-7) -> None:
        super().__init__()
        if not 0 < eps < 1:
            raise UsageError(f"eps is {eps:g}, but it must be a small positive number, for example 1e-7")
        self.eps = eps

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of ``[B, C, H, W]`` or ``[B, D]`` features.

        Raises:
            UsageError: if the batch has one sample.
        """
        q, p = _neighbours(student), _neighbours(teacher)
        return (p * ((p + self.eps) / (q + self.eps)).log()).mean()

    def extra_repr(self) -> str:
        """Show the setting when the loss is printed."""
        return f"eps={self.eps:g}"


def _neighbours(features: Tensor) -> Tensor:
    """Conditional probabilities ``[B, B]``; rows sum to 1."""
    rows = unit_rows(gather_rows(features, "PKTLoss"))
    kernel = ((torch.mm(rows, rows.T) + 1) / 2).clamp_min(0.0)  # a cosine of -1 may be rounded below it
    return kernel / kernel.sum(dim=-1, keepdim=True)
