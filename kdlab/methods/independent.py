"""The student on its own: the baseline of every comparison, and how teachers are trained."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.methods.base import Method
from kdlab.types import Batch, Outputs


class IndependentStudent(Method):
    """Train a network on labels alone.

    ``label`` = cross-entropy with the labels (mean over the batch).

    Args:
        label_smoothing: share of the label's weight that is spread evenly over all classes.
    """

    def __init__(self, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(teacher=None, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing is {label_smoothing:g}, but it is a share: choose 0 <= share < 1")
        self.label_smoothing = label_smoothing

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the label term."""
        return {"label": F.cross_entropy(student.logits.float(), batch.label, label_smoothing=self.label_smoothing)}
