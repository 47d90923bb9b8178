"""Knowledge distillation as Hinton et al. defined it: learn from the teacher's softened answers."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses import LogitLoss, SoftTargets
from kdlab.methods.base import Method
from kdlab.methods.weights import TermWeights, term_weights
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs

# of RepDistiller and its successors: their 0.1 x cross-entropy + 0.9 x divergence at T = 4
DEFAULT_WEIGHTS = TermWeights(label=0.1, logit=0.9)
DEFAULT_TEMPERATURE = 4.0


class LogitMatching(Method):
    """Train a student on labels and on the logits of a teacher.

    ``label`` = label_weight x cross-entropy with the labels;
    ``logit`` = logit_weight x T^2 KL(teacher || student) of distributions softened by the temperature T, or
    whatever `logit_loss` computes.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015.

    Args:
        teacher: where the logits come from.
        temperature: T of the soft targets, 4 if nothing is given.
        label_weight: factor of the label term, 0.1 by default.
        logit_weight: factor of the logit term, 0.9 by default.
        alpha: short for label_weight: alpha, logit_weight: 1 - alpha. It multiplies the label term; half of the
            literature uses the same letter for the other one.
        logit_loss: another loss between logits; it brings its own temperature.
    """

    def __init__(
        self,
        teacher: Teacher,
        temperature: float | None = None,
        label_weight: float | None = None,
        logit_weight: float | None = None,
        alpha: float | None = None,
        logit_loss: LogitLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher=teacher, **kwargs)
        if logit_loss is not None and temperature is not None:
            raise UsageError(
                f"temperature: {temperature:g} and a logit_loss are both given, but the loss has its own temperature; "
                "set model.logit_loss.init_args.temperature instead"
            )
        self.weights = term_weights(alpha, label_weight, logit_weight, DEFAULT_WEIGHTS)
        self.logit_loss = logit_loss or SoftTargets(DEFAULT_TEMPERATURE if temperature is None else temperature)

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the label term and the logit term."""
        assert teacher is not None
        label = F.cross_entropy(student.logits.float(), batch.label)
        logit = self.logit_loss(student.logits, teacher.logits, batch.label)
        return {"label": self.weights.label * label, "logit": self.weights.logit * logit}
