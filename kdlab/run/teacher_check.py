"""A look at the teacher before anybody learns from it."""

import itertools
import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

log = logging.getLogger(__name__)

SHOWN_CLASSES = 20
MOST_BATCHES = 10  # of evaluation size and per process: enough for a verdict, also where a forward pass is slow


class TeacherCheck(Callback):
    """Log the teacher's accuracy, output entropy and class histogram on held-out images, and call out a collapse.

    The images are the first `MOST_BATCHES` batches of the validation split; without one (``val_fraction: 0``) of the
    training split, seen as they are, and the log says so. Never the test split. Logged as
    ``teacher/val_accuracy``, ``teacher/val_entropy`` (mean entropy of the outputs in nats, at temperature 1) and
    ``teacher/val_largest_class`` (share of the most predicted class); the histogram goes to the run's log.
    """

    def __init__(self) -> None:
        self.report: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The report, for the result of a run that is resumed."""
        return {"report": self.report}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the report of before."""
        self.report = state_dict["report"]

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check and log; nothing is changed by it."""
        teacher = getattr(pl_module, "teacher", None)
        if teacher is None or teacher.learns or trainer.global_step > 0:
            return
        histogram, correct, entropy = self._collect(trainer, pl_module)
        samples = int(histogram.sum())
        if samples == 0:
            return
        self.report = {
            "teacher/val_accuracy": float(correct) / samples,
            "teacher/val_entropy": float(entropy) / samples,
            "teacher/val_largest_class": float(histogram.max()) / samples,
        }
        for logger in trainer.loggers:
            logger.log_metrics(self.report, step=0)
        split = "validation" if len(trainer.datamodule.val_split) else "training"  # type: ignore[attr-defined]
        log.info(
            "teacher on %d %s images: accuracy %.4f, output entropy %.3f nats, predicted classes %s",
            samples, split, self.report["teacher/val_accuracy"], self.report["teacher/val_entropy"],
            _in_words(histogram.long().tolist()),
        )  # fmt: skip
        if not getattr(teacher, "untrained", False):  # which was said already
            _warn_if_useless(self.report, len(histogram))

    def _collect(self, trainer: Trainer, module: LightningModule) -> tuple[Tensor, Tensor, Tensor]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        histogram = torch.zeros(module.num_classes, device=module.device, dtype=torch.float64)  # type: ignore[call-overload]
        correct, entropy = histogram.new_zeros(()), histogram.new_zeros(())
        loader = data.val_dataloader() or data.plain_train_dataloader()
        limit = trainer.limit_val_batches if isinstance(trainer.limit_val_batches, int) else MOST_BATCHES
        for batch in itertools.islice(loader, limit):
            batch = data.plain_view(data.transfer_batch_to_device(batch, module.device, 0))
            if not len(batch.label):
                continue
            log_p = module.teacher(batch).logits.double().log_softmax(dim=-1)  # type: ignore[operator]
            prediction = log_p.argmax(dim=-1)
            histogram += torch.bincount(prediction, minlength=len(histogram))
            correct += (prediction == batch.label).sum()
            entropy -= (log_p.exp() * log_p).sum()
        totals = torch.cat([histogram, torch.stack([correct, entropy])])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(totals)
        return totals[:-2], totals[-2], totals[-1]


def _in_words(histogram: list[int]) -> str:
    """All counts, or the extremes of them where they would fill the screen."""
    if len(histogram) <= SHOWN_CLASSES:
        return str(histogram)
    missing = sum(count == 0 for count in histogram)
    return f"{min(histogram)} to {max(histogram)} times each, {missing} of {len(histogram)} never"


def _warn_if_useless(report: dict[str, float], num_classes: int) -> None:
    accuracy, largest = report["teacher/val_accuracy"], report["teacher/val_largest_class"]
    if largest > 0.5 and num_classes > 2:
        log.warning(
            "the teacher has collapsed: it gives one class to %.0f%% of the images (accuracy %.4f). "
            "A student cannot learn from it; train the teacher again",
            100 * largest, accuracy,
        )  # fmt: skip
    elif accuracy < 2 / num_classes:
        log.warning(
            "the teacher is no better than guessing: accuracy %.4f with %d classes. "
            "Is it trained, on these classes in this order, with this normalisation?",
            accuracy, num_classes,
        )  # fmt: skip
    if report["teacher/val_entropy"] > 0.99 * math.log(num_classes):
        log.warning("the teacher's outputs are uniform: it tells nothing about the images")
