"""Which samples the teacher finds alike."""

from typing import Any

from kdlab.losses import SimilarityLoss
from kdlab.methods.feature_matching import FeatureMatching
from kdlab.teachers import Teacher


class SimilarityPreserving(FeatureMatching):
    """Train a student on labels and on the teacher's pairwise similarities of the samples in a batch.

    ``label`` = label_weight x cross-entropy; ``similarity`` = similarity_weight x squared difference of the
    row-normalised similarity matrices, by B^2, usually of the last stage; ``logit`` as in LogitMatching if
    logit_weight is not 0. Student and teacher may differ in width. Under DDP it sees the samples of all processes.

    Source: Tung & Mori, Similarity-Preserving Knowledge Distillation, 2019; weight 3000 as in RepDistiller.

    Args:
        teacher: where the features come from.
        similarity_weight: factor of the similarity term.
    """

    term = "similarity"

    def __init__(self, teacher: Teacher, similarity_weight: float = 3000.0, **kwargs: Any) -> None:
        super().__init__(teacher, feature_loss=SimilarityLoss(), feature_weight=similarity_weight, **kwargs)
