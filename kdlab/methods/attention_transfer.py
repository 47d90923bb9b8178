"""Where the teacher looks."""

from typing import Any

from kdlab.losses import AttentionLoss
from kdlab.methods.feature_matching import FeatureMatching
from kdlab.teachers import Teacher


class AttentionTransfer(FeatureMatching):
    """Train a student on labels and on the teacher's attention maps: the mean squares of features over channels.

    ``label`` = label_weight x cross-entropy; ``attention`` = attention_weight x mean squared difference of the
    normalised maps, summed over the pairs of layers, usually the last of each stage; ``logit`` as in LogitMatching
    if logit_weight is not 0.

    Source: Zagoruyko & Komodakis, Paying More Attention to Attention, 2017; weight 1000 as in RepDistiller.

    Args:
        teacher: where the features come from.
        attention_weight: factor of the attention term.
    """

    term = "attention"

    def __init__(self, teacher: Teacher, attention_weight: float = 1000.0, **kwargs: Any) -> None:
        super().__init__(teacher, feature_loss=AttentionLoss(), feature_weight=attention_weight, **kwargs)
