"""How far apart, and at which angles, the teacher sees the samples."""

from typing import Any

from kdlab.losses import RelationalLoss
from kdlab.methods.feature_matching import FeatureMatching
from kdlab.teachers import Teacher


class RelationalKD(FeatureMatching):
    """Train a student on labels and on the distances and angles between the teacher's embeddings of the samples.

    ``label`` = label_weight x cross-entropy; ``relation`` = relation_weight x (distance_weight x distance loss +
    angle_weight x angle loss), usually of the pooled features; ``logit`` as in LogitMatching if logit_weight is not
    0. Student and teacher may differ in width. Under DDP it sees the samples of all processes.

    Source: Park, Kim, Lu & Cho, Relational Knowledge Distillation, 2019; weights as in RepDistiller.

    Args:
        teacher: where the features come from.
        relation_weight: factor of the relation term.
        distance_weight: factor of the distances in it.
        angle_weight: factor of the angles in it.
    """

    term = "relation"

    def __init__(
        self,
        teacher: Teacher,
        relation_weight: float = 1.0,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        **kwargs: Any,
    ) -> None:
        loss = RelationalLoss(distance_weight, angle_weight)
        super().__init__(teacher, feature_loss=loss, feature_weight=relation_weight, **kwargs)
