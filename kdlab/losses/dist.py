"""DIST: match correlations instead of values.

Shapes: B samples, K classes.
"""

import torch.nn.functional as F
from torch import Tensor

from kdlab.losses.base import LogitLoss, in_float32, nonnegative
from kdlab.losses.distributed import at_least_two, gather_batch
from kdlab.losses.rows import correlation_rows


class DIST(LogitLoss):
    r"""One minus the correlation of softened probabilities, over the classes and over the samples.

    .. math:: \tau^2 \Big(\beta \, \frac1B \sum_i \big(1 - \rho(p^s_{i\cdot}, p^t_{i\cdot})\big)
        + \gamma \, \frac1K \sum_k \big(1 - \rho(p^s_{\cdot k}, p^t_{\cdot k})\big)\Big)

    with :math:`\rho` Pearson's correlation and p the softmax of logits divided by :math:`\tau`. The first term (the
    paper's inter-class relation) compares the classes of each sample, the second (intra-class) the samples in each
    class; under DistributedDataParallel the second sees the samples of all processes.

    Where the teacher's row or column is constant there is nothing to match, and it counts 0. Where only the
    student's is constant, its correlation is 0 and it has no gradient.

    Source: Huang, You, Wang, Qian & Xu, Knowledge Distillation from A Stronger Teacher, NeurIPS 2022. They train
    with weight 1 for the cross-entropy and 2 for this loss on CIFAR-100. Their code adds 1e-8 to the denominator of
    the correlation, which damps classes that are improbable in all samples; the paper's formula, as here, does not.

    Args:
        beta: weight of the term over classes.
        gamma: weight of the term over samples.
        tau: temperature; 4 on CIFAR-100, 1 on ImageNet. None for the method's, and without one 4.

    Raises:
        UsageError: if `tau` is not positive, or a weight is negative.
    """

    temperature: float  # never None here

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, tau: float | None = None) -> None:
        super().__init__()
        self.beta = nonnegative("beta", beta)
        self.gamma = nonnegative("gamma", gamma)
        self.take_temperature(tau, default=4.0)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss of ``[B, K]`` logits; `labels` is not used.

        Raises:
            UsageError: if the batch has one sample and `gamma` is not 0: one sample correlates with nothing.
        """
        student_p = F.softmax(in_float32(student) / self.temperature, dim=-1)
        teacher_p = F.softmax(in_float32(teacher) / self.temperature, dim=-1)
        loss = self.beta * _mean_missing_correlation(student_p, teacher_p)
        if self.gamma > 0:
            student_p, teacher_p = gather_batch(student_p), gather_batch(teacher_p)
            at_least_two(teacher_p, "DIST (with gamma > 0)")
            loss = loss + self.gamma * _mean_missing_correlation(student_p.T, teacher_p.T)
        return self.temperature**2 * loss

    def extra_repr(self) -> str:
        """Show the settings when the loss is printed."""
        return f"beta={self.beta:g}, gamma={self.gamma:g}, tau={self.temperature:g}"


def _mean_missing_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - correlation over the rows, 0 for rows in which the teacher is constant."""
    student, teacher = correlation_rows(student), correlation_rows(teacher)
    # t . (t - s) is 1 - t . s for a t of length 1, exactly 0 for equal rows, and 0 for a constant teacher (t = 0)
    return (teacher * (teacher - student)).sum(dim=-1).mean()
