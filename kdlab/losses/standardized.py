"""Soft targets of logits that are standardised first.

Shapes: B samples, K classes.
"""

from typing import Literal

import torch
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import in_float32, nonnegative
from kdlab.losses.soft_targets import SoftTargets


class StandardizedSoftTargets(SoftTargets):
    r"""Soft targets that see the order and the proportions of the logits, not their mean or their size.

    .. math:: T^2 \, \frac1B \sum_i \mathrm{KL}\big(\sigma(Z(t_i) / T) \,\|\, \sigma(Z(s_i) / T)\big),
        \quad Z(z) = \frac{z - \bar z}{\mathrm{std}(z) + \epsilon}

    with student logits s, teacher logits t, mean and standard deviation over the classes of each sample. The loss
    does not change when all logits of a sample are shifted, or multiplied by a positive number.

    Source: Sun, Ren, Li, Wang & Cao, Logit Standardization in Knowledge Distillation, CVPR 2024. The authors' code
    takes the sample standard deviation (`ddof` 1), as the default here; `ddof` 0 is the population's.

    Example:
        >>> import torch
        >>> loss = StandardizedSoftTargets(temperature=2.0)
        >>> logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
        >>> loss(10 * logits + 3, logits).abs() < 1e-6
        tensor(True)

    Args:
        temperature: divides the standardised logits of both before the softmax; the authors use 2 to 4.
            None for the method's, and without one 2.
        ddof: 1 divides the sum of squares by K - 1, 0 by K.
        eps: added to the standard deviation.

    Raises:
        UsageError: if `temperature` is not positive, `ddof` is neither 0 nor 1, or `eps` is negative.
    """

    def __init__(self, temperature: float | None = None, ddof: Literal[0, 1] = 1, eps: float = 1e-7) -> None:
        super().__init__()
        self.take_temperature(temperature, default=2.0)
        if ddof not in (0, 1):
            raise UsageError(f"ddof is {ddof}, but it must be 1 (sample standard deviation) or 0 (population's)")
        self.ddof = ddof
        self.eps = nonnegative("eps", eps)

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the scaled divergence of ``[B, K]`` logits; `labels` is not used."""
        return super().forward(standardize(student, self.ddof, self.eps), standardize(teacher, self.ddof, self.eps))

    def extra_repr(self) -> str:
        """Show the settings when the loss is printed."""
        return f"{super().extra_repr()}, ddof={self.ddof}, eps={self.eps:g}"


def standardize(logits: Tensor, ddof: int = 1, eps: float = 1e-7) -> Tensor:
    """Return logits with mean 0 and standard deviation 1 over the classes of each sample, in float32.

    A constant row has no standard deviation: it becomes zeros, without gradient.

    Args:
        logits: ``[B, K]``.
        ddof: subtracted from K under the sum of squares.
        eps: added to the standard deviation.
    """
    logits = in_float32(logits)
    # a shift changes nothing but makes a constant row exactly 0 and saves digits of a small row on a large offset
    shifted = logits - logits[:, :1].detach()
    centred = shifted - shifted.mean(dim=-1, keepdim=True)
    std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / (logits.shape[-1] - ddof) ** 0.5
    varies = std > 0
    return torch.where(varies, centred / torch.where(varies, std + eps, 1.0), 0.0)
