"""Knowledge distillation as Hinton et al. defined it: learn from the teacher's softened answers."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses import LogitLoss, SoftTargets
from kdlab.losses.base import positive_temperature
from kdlab.methods.base import Method
from kdlab.methods.checks import check_scalar
from kdlab.methods.weights import TermWeights, require_one, term_weights
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs


class LogitMatching(Method):
    """Train a student on labels and on the logits of a teacher.

    ``label`` = label_weight x cross-entropy with the labels;
    ``logit`` = logit_weight x T^2 KL(teacher || student) of distributions softened by the temperature T, or
    whatever `logit_loss` computes. A term of weight 0 is left out.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015.

    Args:
        teacher: where the logits come from.
        temperature: T of the logit loss; None for the loss's own, which is 4 where no loss is given.
        label_weight: factor of the label term.
        logit_weight: factor of the logit term.
        alpha: short for label_weight: alpha, logit_weight: 1 - alpha. It multiplies the label term; half of the
            literature uses the same letter for the other one.
        logit_loss: how logits are compared; None for SoftTargets.
    """

    # of RepDistiller and its successors: their 0.1 x cross-entropy + 0.9 x divergence at T = 4
    default_weights = TermWeights(label=0.1, logit=0.9)

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
        self.weights = term_weights(alpha, label_weight, logit_weight, self.default_weights)
        if type(self).losses is LogitMatching.losses:  # a subclass may have other terms
            require_one(self.weights.by_name())
        self.logit_loss = logit_loss or SoftTargets()
        if temperature is not None:
            if self.logit_loss.temperature is None:
                raise UsageError(
                    f"temperature is {temperature:g}, but {type(self.logit_loss).__name__} has no single temperature; "
                    "set model.temperature: null"
                )
            own = self.logit_loss.temperature
            if self.logit_loss.temperature_given and own != temperature:
                raise UsageError(
                    f"temperature: {temperature:g} and the logit loss's own {own:g} are both given; "
                    "set model.temperature: null to keep the loss's, or leave the loss's out (a loss of your own: call "
                    "take_temperature)"
                )
            self.logit_loss.temperature = positive_temperature(temperature)
        teacher.soften(self.logit_loss.temperature or 1.0)

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the label term and the logit term."""
        assert teacher is not None
        terms = {}
        if self.weights.label:
            terms["label"] = self.weights.label * F.cross_entropy(student.logits.float(), batch.label)
        if self.weights.logit:
            loss = self.logit_loss(student.logits, teacher.logits, batch.label)
            check_scalar(f"what {type(self.logit_loss).__name__} returns", loss)
            terms["logit"] = self.weights.logit * loss
        return terms
