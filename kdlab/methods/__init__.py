"""Who learns what from whom: one Lightning module per method."""

from kdlab.methods.attention_transfer import AttentionTransfer
from kdlab.methods.base import Method
from kdlab.methods.feature_matching import FeatureMatching
from kdlab.methods.hint_transfer import FitNet, HintTransfer
from kdlab.methods.independent import IndependentStudent
from kdlab.methods.logit_matching import LogitMatching
from kdlab.methods.logit_standardization import LogitStandardization
from kdlab.methods.mutual_learning import MutualLearning
from kdlab.methods.probabilistic_kt import ProbabilisticKT
from kdlab.methods.relational_kd import RelationalKD
from kdlab.methods.similarity_preserving import SimilarityPreserving
from kdlab.methods.sub_student_ensemble import SubStudentEnsemble

__all__ = [
    "AttentionTransfer",
    "FeatureMatching",
    "FitNet",
    "HintTransfer",
    "IndependentStudent",
    "LogitMatching",
    "LogitStandardization",
    "Method",
    "MutualLearning",
    "ProbabilisticKT",
    "RelationalKD",
    "SimilarityPreserving",
    "SubStudentEnsemble",
]
