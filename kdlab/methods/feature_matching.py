"""Matching features of inner layers, by any loss between features; its named special cases are one file each.

Shapes: B images, features [B, C, H, W] or [B, D].
"""

from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses import FeatureLoss
from kdlab.losses.base import nonnegative
from kdlab.methods.logit_matching import LogitMatching
from kdlab.methods.weights import TermWeights, require_one
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs


class FeatureMatching(LogitMatching):
    """Train a student on labels and on features of the teacher, and on its logits if they get a weight.

    ``label`` = label_weight x cross-entropy; ``feature`` = feature_weight x the feature loss, summed over the pairs
    of layers; ``logit`` = logit_weight x the logit loss, left out by default.

    Args:
        teacher: where the features come from.
        student_layers: module paths of the student's layers.
        teacher_layers: module paths of the teacher's layers, as many.
        feature_loss: how two features are compared.
        feature_weight: factor of the feature term.
    """

    default_weights = TermWeights(label=1.0, logit=0.0)  # as in RepDistiller
    term = "feature"

    def __init__(
        self,
        teacher: Teacher,
        student_layers: list[str],
        teacher_layers: list[str],
        feature_loss: FeatureLoss,
        feature_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher=teacher, **kwargs)
        if not student_layers or len(student_layers) != len(teacher_layers):
            raise UsageError(
                f"student_layers {student_layers} and teacher_layers {teacher_layers} are not pairs; "
                "name equally many of both, one at least"
            )
        self.layers = list(zip(student_layers, teacher_layers, strict=True))
        self.feature_loss = feature_loss
        self.feature_weight = nonnegative(f"{self.term}_weight", feature_weight)
        require_one({**self.weights.by_name(), f"{self.term}_weight": feature_weight})
        self.tap(student_layers, teacher_layers)

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of `LogitMatching` that have a weight, and the feature term."""
        assert teacher is not None
        terms = super().losses(student, teacher, batch)
        return terms | {self.term: self.feature_term(student, teacher)} if self.feature_weight else terms

    def feature_term(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the weighted sum over the pairs of layers.

        Args:
            student: features of the student's layers, with gradients.
            teacher: features of the teacher's layers.
        """
        pairs = [
            self.compare(student.features[mine], teacher.features[theirs], pair)
            for pair, (mine, theirs) in enumerate(self.layers)
        ]
        return self.feature_weight * sum(pairs[1:], start=pairs[0])

    def compare(self, student: Tensor, teacher: Tensor, pair: int) -> Tensor:
        """Return the unweighted loss of one pair of layers.

        Args:
            student: feature of the student, with gradients.
            teacher: feature of the teacher.
            pair: which pair it is, counted from 0.
        """
        loss: Tensor = self.feature_loss(student, teacher)
        return loss

    @property
    def reaches_whole_student(self) -> bool:
        """Whether every step has a gradient for all parameters: features alone tell nothing to the layers above."""
        return any(self.weights)

    def setup(self, stage: str) -> None:
        """Prepare for training, and let DDP know where a step reaches only a part of the student."""
        super().setup(stage)
        if stage == "fit" and isinstance(self.trainer.strategy, DDPStrategy) and not self.reaches_whole_student:
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
