"""A method: labels, and the logits of the teacher only where the teacher is right."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdlab.methods import Method
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs


class TrustedLogits(Method):
    """Train on labels, and on the squared difference to the logits of those answers that are right.

    Args:
        teacher: where the logits come from.
        label_weight: factor of the label term.
        trusted_weight: factor of the other one.
    """

    def __init__(self, teacher: Teacher, label_weight: float = 1.0, trusted_weight: float = 0.1, **kwargs: Any) -> None:
        super().__init__(teacher=teacher, **kwargs)
        self.label_weight = label_weight
        self.trusted_weight = trusted_weight

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return both terms; they are added, and logged as train/label_loss and train/trusted_loss."""
        assert teacher is not None
        right = teacher.logits.argmax(dim=-1) == batch.label
        squares = (student.logits - teacher.logits).float().square().mean(dim=-1)
        return {
            "label": self.label_weight * F.cross_entropy(student.logits.float(), batch.label),
            "trusted": self.trusted_weight * (squares * right).mean(),
        }
