"""What is matched: losses as pure functions of tensors, without networks and without Lightning."""

from kdlab.losses.attention import AttentionLoss
from kdlab.losses.base import FeatureLoss, LogitLoss
from kdlab.losses.decoupled import DecoupledKD
from kdlab.losses.dist import DIST
from kdlab.losses.dynamic_temperature import DynamicTemperature
from kdlab.losses.hint import HintLoss
from kdlab.losses.multi_level import MultiLevelKD
from kdlab.losses.pkt import PKTLoss
from kdlab.losses.relational import RelationalLoss
from kdlab.losses.similarity import SimilarityLoss
from kdlab.losses.soft_targets import SoftTargets
from kdlab.losses.standardized import StandardizedSoftTargets
from kdlab.losses.warmup import LinearWarmup

__all__ = [
    "DIST",
    "AttentionLoss",
    "DecoupledKD",
    "DynamicTemperature",
    "FeatureLoss",
    "HintLoss",
    "LinearWarmup",
    "LogitLoss",
    "MultiLevelKD",
    "PKTLoss",
    "RelationalLoss",
    "SimilarityLoss",
    "SoftTargets",
    "StandardizedSoftTargets",
]
