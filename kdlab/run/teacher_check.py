"""A look at the teacher before anybody learns from it."""

import itertools
import logging
import math
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from kdlab.errors import NumericalError
from kdlab.methods import Method
from kdlab.teachers import Teacher

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
        if trainer.global_step > 0:
            return
        for name, teacher in _teachers(cast("Method", pl_module)).items():
            self._check(trainer, pl_module, name, teacher)

    def _check(self, trainer: Trainer, module: LightningModule, name: str, teacher: Teacher) -> None:
        histogram, correct, entropy = self._collect(trainer, module, teacher)
        samples = int(histogram.sum())
        if samples == 0:
            return
        accuracy, entropy_nats = float(correct) / samples, float(entropy) / samples
        largest = float(histogram.max()) / samples
        if not math.isfinite(entropy_nats):
            raise NumericalError(
                f"the {name} answers with numbers that are not finite: its weights are damaged or its training "
                "diverged; train it again"
            )
        found = {"val_accuracy": accuracy, "val_entropy": entropy_nats, "val_largest_class": largest}
        found = {f"{name}/{key}": value for key, value in found.items()}
        self.report |= found
        for logger in trainer.loggers:
            logger.log_metrics(found, step=0)
        split = "validation" if len(trainer.datamodule.val_split) else "training"  # type: ignore[attr-defined]
        log.info(
            "%s on %d %s images: accuracy %.4f, output entropy %.3f nats, predicted classes %s",
            name, samples, split, accuracy, entropy_nats, _in_words(histogram.long().tolist()),
        )  # fmt: skip
        if not teacher.untrained:  # which was said already
            _warn_if_useless(name, accuracy, entropy_nats, largest, len(histogram))

    def _collect(self, trainer: Trainer, module: LightningModule, teacher: Teacher) -> tuple[Tensor, Tensor, Tensor]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        histogram = torch.zeros(module.num_classes, device=module.device, dtype=torch.float64)  # type: ignore[call-overload]
        correct, entropy = histogram.new_zeros(()), histogram.new_zeros(())
        loader = data.val_dataloader() or data.plain_train_dataloader()
        asked = trainer.limit_val_batches
        limit = min(asked, MOST_BATCHES) if isinstance(asked, int) and asked else MOST_BATCHES
        for batch in itertools.islice(loader, limit):
            batch = data.plain_view(data.transfer_batch_to_device(batch, module.device, 0))
            if not len(batch.label):
                continue
            log_p = teacher(batch).logits.double().log_softmax(dim=-1)
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


def _teachers(method: Method) -> dict[str, Teacher]:
    """The teachers that do not learn: the method's, or those of the members of an ensemble that do not share one."""
    named = {"teacher": method.teacher}
    if named["teacher"] is None:
        named = {f"member{m}_teacher": member.teacher for m, member in enumerate(method.single_methods)}
    return {name: teacher for name, teacher in named.items() if teacher is not None and not teacher.learns}


def _warn_if_useless(name: str, accuracy: float, entropy: float, largest: float, num_classes: int) -> None:
    if largest > 0.5 and num_classes > 2:
        log.warning(
            "the %s has collapsed: it gives one class to %.0f%% of the images (accuracy %.4f). "
            "A student cannot learn from it; train the teacher again",
            name, 100 * largest, accuracy,
        )  # fmt: skip
    elif accuracy < 1 / num_classes + 0.1 * (1 - 1 / num_classes):  # a tenth of the way from chance to perfect
        log.warning(
            "the %s is no better than guessing: accuracy %.4f with %d classes. "
            "Is it trained, on these classes in this order, with this normalisation?",
            name, accuracy, num_classes,
        )  # fmt: skip
    if entropy > 0.99 * math.log(num_classes):
        log.warning("the %s's outputs are uniform: it tells nothing about the images", name)
