"""How a student is validated, tested and asked for predictions: the same for all methods.

Shapes: B images, K classes.
"""

import math
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from kdlab.errors import NumericalError
from kdlab.metrics import ClassificationMetrics, FidelityMetrics, MemberMetrics, PerClassMetrics
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs


class Evaluation(LightningModule):
    """A student, and a teacher to compare it with, on validation and test images.

    Attributes:
        student: the network that is evaluated, image -> logits.
        teacher: tested beside it, where there is one.
        member_names: of the networks whose answers `evaluate` returns as members; none for a single network.
    """

    student: nn.Module
    teacher: Teacher | None
    member_names: tuple[str, ...] = ()

    def forward(self, image: Tensor) -> Tensor:
        """Return the student's ``[B, K]`` logits of ``[B, C, H, W]`` images."""
        logits: Tensor = self.student(image)
        return logits

    def evaluate(self, image: Tensor) -> Outputs:
        """Return what is evaluated of ``[B, C, H, W]`` images: the student's answer, and those of its members."""
        return Outputs(self(image))

    def make_metrics(self, num_classes: int) -> None:
        """Make the metrics for K = `num_classes` classes."""
        self.num_classes = num_classes
        self.val_metrics = ClassificationMetrics(num_classes)
        self.test_metrics = ClassificationMetrics(num_classes)
        self.teacher_test_metrics = ClassificationMetrics(num_classes)
        self.fidelity = FidelityMetrics()
        self.test_per_class = PerClassMetrics(num_classes)
        self.member_metrics = MemberMetrics(self.member_names)
        self.test_report: dict[str, Any] = {}  # filled by a test: per-class scores and the confusion matrix

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the student's answers to a validation batch; the batch may be empty under DDP."""
        self._collect(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy and calibration of the validation split.

        Raises:
            NumericalError: if the student's answers are no finite numbers; no checkpoint is written of it.
        """
        self._log_student("val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers of the student, and of the teacher where there is one, to a test batch."""
        logits = self._collect(batch, self.test_metrics)
        if logits is None:
            return
        self.test_per_class.update(logits, batch.label)
        if self.teacher is not None and self.teacher.ready:
            teacher_logits = self.teacher(batch).logits
            self.teacher_test_metrics.update(teacher_logits, batch.label)
            self.fidelity.update(logits, teacher_logits, batch.label)

    def on_test_epoch_end(self) -> None:
        """Log ``test/...`` of the student, ``teacher/test_...`` of the teacher, and how far they agree."""
        self._log_student("test", self.test_metrics)
        if self.teacher is not None and self.teacher.ready:
            metrics = self.teacher_test_metrics.compute()
            self.log_dict({f"teacher/test_{name}": value.float() for name, value in metrics.items()})
            self._log("test", self.fidelity.compute())
        self.test_report = self.test_per_class.compute()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return ``index`` ``[B]``, ``label`` ``[B]`` and ``logits`` ``[B, K]`` of a batch."""
        logits = self(batch.image) if len(batch.label) else batch.image.new_zeros(0, self.num_classes)
        return {"index": batch.index, "label": batch.label, "logits": logits.float()}

    def _collect(self, batch: Batch, metrics: ClassificationMetrics) -> Tensor | None:
        if not len(batch.label):
            return None
        outputs = self.evaluate(batch.image)
        metrics.update(outputs.logits, batch.label)
        self.member_metrics.update([member.logits for member in outputs.members], batch.label)
        return outputs.logits

    def _log_student(self, split: str, metrics: ClassificationMetrics) -> None:
        found = metrics.compute()
        if not math.isfinite(found["nll"]):
            raise NumericalError(
                f"{split}/nll is {found['nll']:g}: the student's answers to some images are no finite numbers; "
                "lower the learning rate, or train in float32"
            )
        self._log(split, found | self.member_metrics.compute())

    def _log(self, split: str, metrics: dict[str, Tensor]) -> None:
        self.log_dict({f"{split}/{name}": value.float() for name, value in metrics.items()})
