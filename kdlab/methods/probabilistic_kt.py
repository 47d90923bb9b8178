"""Who the teacher takes for the neighbours of a sample."""

from typing import Any

from kdlab.losses import PKTLoss
from kdlab.methods.feature_matching import FeatureMatching
from kdlab.teachers import Teacher


class ProbabilisticKT(FeatureMatching):
    """Train a student on labels and on the teacher's distribution of the neighbours of each sample.

    ``label`` = label_weight x cross-entropy; ``neighbour`` = neighbour_weight x divergence of the conditional
    distributions that cosine similarities make, usually of the pooled features; ``logit`` as in LogitMatching if
    logit_weight is not 0. Student and teacher may differ in width. Under DDP it sees the samples of all processes.

    Source: Passalis & Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, 2018; weight 30000 as
    in RepDistiller.

    Args:
        teacher: where the features come from.
        neighbour_weight: factor of the neighbour term.
    """

    term = "neighbour"

    def __init__(self, teacher: Teacher, neighbour_weight: float = 30000.0, **kwargs: Any) -> None:
        super().__init__(teacher, feature_loss=PKTLoss(), feature_weight=neighbour_weight, **kwargs)
