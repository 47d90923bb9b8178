"""Logit matching that leaves mean and size of the logits to the student."""

from typing import Any, Literal

from kdlab.losses import StandardizedSoftTargets
from kdlab.methods.logit_matching import LogitMatching
from kdlab.methods.weights import TermWeights
from kdlab.teachers import Teacher


class LogitStandardization(LogitMatching):
    """Train a student on labels and on the standardised logits of a teacher.

    ``label`` = label_weight x cross-entropy with the labels;
    ``logit`` = logit_weight x T^2 KL(teacher || student) of logits that are brought to mean 0 and standard deviation
    1 in each sample, then softened by the temperature T.

    Source: Sun, Ren, Li, Wang & Cao, Logit Standardization in Knowledge Distillation, 2024. Their weights, 0.1 and 9,
    are the defaults; on CIFAR-100 they choose T from 2 to 4 and the logit weight from 1 to 12 for each pair.

    Args:
        teacher: where the logits come from.
        temperature: T of the soft targets.
        ddof: 1 for the sample standard deviation, 0 for the population's.
    """

    default_weights = TermWeights(label=0.1, logit=9.0)

    def __init__(self, teacher: Teacher, temperature: float = 2.0, ddof: Literal[0, 1] = 1, **kwargs: Any) -> None:
        super().__init__(teacher=teacher, logit_loss=StandardizedSoftTargets(temperature, ddof), **kwargs)
