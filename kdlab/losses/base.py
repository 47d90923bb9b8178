"""What a loss on logits looks like.

Shapes: B samples, K classes.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class LogitLoss(nn.Module, ABC):
    """How far the student's logits are from the teacher's.

    A loss takes logits, never probabilities, computes in float32 (float64 stays float64) whatever autocast
    says, returns a scalar, and is 0 where there is nothing left to match.
    """

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            student: ``[B, K]`` logits that are trained.
            teacher: ``[B, K]`` logits to match.
            labels: ``[B]`` class indices, for losses whose definition needs them.
        """


def in_float32(logits: Tensor) -> Tensor:
    """Half-precision logits as float32; float32 and float64 as they are.

    exp, log and squared temperatures leave the range of half precision long before the logits do
    (T = 20 and a divergence of 164 already exceed the largest float16).
    """
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
