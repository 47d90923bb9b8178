"""Features of the teacher as hints, through a regressor that is trained along: in one stage, or in the published two.

Shapes: B images, features [B, C, H, W] or [B, D].
"""

from typing import Any

from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.losses import HintLoss
from kdlab.methods.feature_matching import FeatureMatching
from kdlab.methods.logit_matching import LogitMatching
from kdlab.methods.weights import TermWeights, require_one
from kdlab.models.adapters import HintRegressor
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs


class HintTransfer(FeatureMatching):
    """Train a student on labels and on features of the teacher, all at once.

    ``label`` = label_weight x cross-entropy; ``hint`` = hint_weight x mean squared error between the teacher's
    feature and the student's, brought to its shape by a trained regressor (convolution, batch norm, ReLU);
    ``logit`` as in LogitMatching if logit_weight is not 0. The regressor is no part of the exported student.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, 2015, in the one-stage form in which RepDistiller and
    its successors run it, with weight 100. The published two stages are `FitNet`.

    Args:
        teacher: where the hints come from.
        hint_weight: factor of the hint term.
        regressor_relu: end the regressor with a ReLU; false for teacher layers with negative values.
    """

    term = "hint"

    def __init__(
        self, teacher: Teacher, hint_weight: float = 100.0, regressor_relu: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(teacher, feature_loss=HintLoss(), feature_weight=hint_weight, **kwargs)
        self.regressor_relu = regressor_relu
        self.regressors = nn.ModuleList()

    def prepare(self, student: Outputs, teacher: Outputs | None) -> None:
        """Build the regressors, one for each pair of layers."""
        assert teacher is not None
        if not self.regressors:
            for mine, theirs in self.layers:
                shape, target = student.features[mine].shape[1:], teacher.features[theirs].shape[1:]
                self.regressors.append(HintRegressor(tuple(shape), tuple(target), self.regressor_relu))

    def compare(self, student: Tensor, teacher: Tensor, pair: int) -> Tensor:
        """Return the mean squared error after the regressor."""
        return super().compare(self.regressors[pair](student), teacher, pair)


class FitNet(HintTransfer):
    """Train a student first up to a guided layer on hints alone, then as a whole on labels and logits: one run.

    Stage one, `hint_epochs` long: ``hint`` alone, which reaches the student's layers up to the guided one and the
    regressor; all other weights stay as they are. Stage two, the remaining epochs: ``label`` and ``logit`` as in
    LogitMatching, with a fresh optimizer. The learning-rate schedule runs through both.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, 2015, section 2.3.

    Args:
        teacher: where hints and logits come from.
        hint_epochs: length of stage one; trainer.max_epochs counts both stages.
        hint_weight: factor of the hint term.
    """

    default_weights = TermWeights(label=0.1, logit=0.9)

    def __init__(self, teacher: Teacher, hint_epochs: int, hint_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(teacher, hint_weight=hint_weight, **kwargs)
        if hint_epochs < 1:
            raise UsageError(f"hint_epochs is {hint_epochs}, but stage one lasts 1 epoch or more; or use LogitMatching")
        require_one(self.weights.by_name(), otherwise="stage two has nothing to learn")
        self.hint_epochs = hint_epochs

    @property
    def reaches_whole_student(self) -> bool:
        """Stage one reaches the guided layer and what is below it, stage two no regressor."""
        return False

    @property
    def in_stage_one(self) -> bool:
        """Whether the current epoch trains on hints."""
        return self.current_epoch < self.hint_epochs

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the hint term in stage one, the label and the logit term in stage two."""
        assert teacher is not None
        if self.in_stage_one:
            return {"hint": self.feature_term(student, teacher)}
        return LogitMatching.losses(self, student, teacher, batch)

    def setup(self, stage: str) -> None:
        """See that both stages fit into the run; a rehearsal of a few batches may end in stage one."""
        super().setup(stage)
        epochs = self.trainer.max_epochs
        rehearsal = isinstance(self.trainer.limit_train_batches, int)
        if stage == "fit" and not rehearsal and epochs is not None and 0 < epochs <= self.hint_epochs:
            raise UsageError(
                f"hint_epochs is {self.hint_epochs}, but the run has {epochs} epoch(s) for both stages; "
                f"set trainer.max_epochs above {self.hint_epochs}"
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Forget at the start of stage two what the optimizer knows of stage one."""
        super().on_train_batch_start(batch, batch_idx)
        if self.current_epoch == self.hint_epochs and batch_idx == 0:
            for optimizer in self.trainer.optimizers:
                for parameter in self.parameters():
                    optimizer.state.pop(parameter, None)
