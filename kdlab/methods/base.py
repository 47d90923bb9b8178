"""The training system that all methods share: who learns, from whom, and what is logged and saved.

Shapes: B images, K classes.
"""

import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kdlab.errors import IntegrityError, KDLabError, NumericalError, UsageError
from kdlab.metrics import ClassificationMetrics, EpochMeans, PerClassMetrics
from kdlab.teachers import Teacher
from kdlab.types import Batch, Outputs

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class Method(LightningModule, ABC):
    """A way for a student to learn, alone or from a teacher.

    A subclass says which terms make up the loss, in `losses`. Everything else is done here, once: forward
    passes, the sum, logging of each term as ``train/<name>_loss``, validation and test, the optimizer over
    what is trained, checkpoints without the teacher.

    Args:
        student: the network that is trained, image -> logits.
        num_classes: number of classes of the data; the command line fills it in.
        teacher: where targets come from.
        optimizer: SGD by default: momentum 0.9, weight decay 5e-4, learning rate 0.05.
        lr_scheduler: stepped once per epoch; None keeps the learning rate.
        seed: of dropout and other randomness inside a step; the command line sets it to seed_everything.
    """

    def __init__(
        self,
        student: nn.Module,
        num_classes: int,
        teacher: Teacher | None = None,
        optimizer: OptimizerFactory = lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4),
        lr_scheduler: SchedulerFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.num_classes = num_classes
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.seed = seed
        self.train_means = EpochMeans()
        self.val_metrics = ClassificationMetrics(num_classes)
        self.test_metrics = ClassificationMetrics(num_classes)
        self.teacher_test_metrics = ClassificationMetrics(num_classes)
        self.test_per_class = PerClassMetrics(num_classes)
        self.test_report: dict[str, Any] = {}  # filled by a test: per-class scores and the confusion matrix

    @abstractmethod
    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms of the loss, already weighted; their sum is minimised.

        Pure: no forward pass, no logging.

        Args:
            student: ``logits`` ``[B, K]``, with gradients.
            teacher: ``logits`` ``[B, K]``, without gradients; None where the method has no teacher.
            batch: ``label`` is ``[B]`` class indices, or ``[B, K]`` class weights after mixup.
        """

    # -- forward passes -----------------------------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Return the student's ``[B, K]`` logits of ``[B, C, H, W]`` images."""
        logits: Tensor = self.student(image)
        return logits

    @torch.no_grad()
    def ask_teacher(self, batch: Batch) -> Outputs | None:
        """Return the teacher's outputs, without gradients; None where there is no teacher."""
        return None if self.teacher is None else self.teacher(batch)

    # -- training -----------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch and keep its terms for the log."""
        student = Outputs(self(batch.image))
        terms = self.losses(student, self.ask_teacher(batch), batch)
        loss = torch.stack(list(terms.values())).sum()
        self._record(terms, loss, student.logits, batch.label)
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make the randomness of this step a function of the run's seed and position, so that a resume repeats it."""
        counters = f"{self.seed} {self.current_epoch} {batch_idx} {self.global_rank}"
        seed = int.from_bytes(hashlib.blake2b(counters.encode(), digest_size=8).digest(), "big")
        torch.default_generator.manual_seed(seed)  # torch.manual_seed visits every backend: 100 times slower
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch."""
        means = {f"train/{name}": float(value) for name, value in self.train_means.compute().items()}
        _check_finite(means, f"the mean over epoch {self.current_epoch}")
        self.log_dict(means, logger=False, sync_dist=False)
        self._write_log(means, step=self.global_step - 1)

    def _record(self, terms: dict[str, Tensor], loss: Tensor, logits: Tensor, label: Tensor) -> None:
        target = label if label.dim() == 1 else label.argmax(dim=-1)
        accuracy = (logits.detach().argmax(dim=-1) == target).float().mean()
        # the terms first: when one is no number, it is named rather than the sum
        values = {**{f"{name}_loss": term for name, term in terms.items()}, "loss": loss, "accuracy": accuracy}
        self.train_means.add(values, len(label))
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        log_now = every > 0 and (self.global_step + 1) % every == 0
        if not log_now and self.device.type != "cpu":
            return  # reading a value would make the accelerator wait
        read = dict(
            zip(values, torch.stack([value.detach().float() for value in values.values()]).tolist(), strict=True)
        )
        _check_finite(read, f"step {self.global_step} (epoch {self.current_epoch})")
        if log_now:
            self.log("loss", read["loss"], prog_bar=True, logger=False)
            self._write_log({f"train/{name}_step": value for name, value in read.items()}, step=self.global_step)

    def _write_log(self, values: Mapping[str, float], step: int) -> None:
        """Write to the loggers now.

        `self.log` writes after the resume point of this step, and a kill in between would lose the row for good.
        """
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=step)
            logger.save()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer over everything that requires gradients; a frozen teacher does not."""
        try:
            optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
        except ValueError as error:
            raise UsageError(f"model.optimizer: {error}; see the optimizer's documentation for its range") from error
        if self.lr_scheduler_factory is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler_factory(optimizer)}}

    # -- evaluation ---------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the student's answers to a validation batch; the batch may be empty under DDP."""
        if len(batch.label):
            self.val_metrics.update(self(batch.image), batch.label)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, top-5, NLL and ECE of the validation split."""
        self.log_dict({f"val/{name}": value.float() for name, value in self.val_metrics.compute().items()})

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers of the student, and of the teacher where there is one, to a test batch."""
        if not len(batch.label):
            return
        logits = self(batch.image)
        self.test_metrics.update(logits, batch.label)
        self.test_per_class.update(logits, batch.label)
        if self.teacher is not None and self.teacher.ready:
            self.teacher_test_metrics.update(self.teacher(batch).logits, batch.label)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics: ``test/...`` of the student, ``teacher/test_...`` of the teacher."""
        self.log_dict({f"test/{name}": value.float() for name, value in self.test_metrics.compute().items()})
        if self.teacher is not None and self.teacher.ready:
            metrics = self.teacher_test_metrics.compute()
            self.log_dict({f"teacher/test_{name}": value.float() for name, value in metrics.items()})
        self.test_report = self.test_per_class.compute()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return ``index`` ``[B]``, ``label`` ``[B]`` and ``logits`` ``[B, K]`` of a batch."""
        logits = self(batch.image) if len(batch.label) else batch.image.new_zeros(0, self.num_classes)
        return {"index": batch.index, "label": batch.label, "logits": logits.float()}

    # -- checks before, checkpoints without the teacher ------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load the teacher and try every network on one blank image of the data's shape."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        _try_network(self.student, "student", data.image_shape, self.num_classes)
        if self.teacher is None:
            return
        self._load_teacher(required=stage == "fit")
        if self.teacher.ready:
            _try_network(_AnswerImage(self.teacher), "teacher", data.image_shape, self.num_classes)
        # DDP reads this: the teacher is equal everywhere and needs no broadcast
        tensors = [*self.teacher.named_parameters(), *self.teacher.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = [f"teacher.{name}" for name, _ in tensors]

    def _load_teacher(self, required: bool) -> None:
        assert self.teacher is not None
        try:
            self.teacher.load()
        except KDLabError as error:
            if required:
                raise
            log.warning("the student is tested without its teacher: %s", error)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (torch's own overloads)
        """Everything but the teacher."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "") + "teacher."
        for name in [name for name in state if name.startswith(prefix)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load everything but the teacher.

        Raises:
            IntegrityError: if tensors are missing or left over.
        """
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = [name for name in result.missing_keys if not name.startswith("teacher.")]
        if strict and (missing or result.unexpected_keys):
            raise IntegrityError(
                f"the checkpoint is of another model: {len(missing)} tensors are missing {missing[:3]}, "
                f"{len(result.unexpected_keys)} are not known here {result.unexpected_keys[:3]}"
            )
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the means of the unfinished epoch.

        Raises:
            NumericalError: if a loss in it was no number; the checkpoint of before stays.
        """
        state = checkpoint["train_means"] = self.train_means.state_dict()
        _check_finite(dict(zip(state["names"], state["totals"].tolist(), strict=False)), "an unsaved step")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the means of the unfinished epoch."""
        if "train_means" in checkpoint:
            self.train_means.load_state_dict(checkpoint["train_means"], is_first_process=self.global_rank == 0)


class _AnswerImage(nn.Module):
    """A teacher as a network: image -> logits."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: Tensor) -> Tensor:
        zeros = torch.zeros(len(image), dtype=torch.long, device=image.device)
        outputs: Outputs = self.teacher(Batch(image, zeros, zeros, zeros))
        return outputs.logits


@torch.no_grad()
def _try_network(network: nn.Module, role: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Answer one blank image, so that a network that does not fit the data is found before anything is written."""
    name = type(network).__name__ if role == "student" else "the teacher"
    parameter = next(network.parameters(), torch.zeros(0))
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        logits = network(image)
    except KDLabError:
        raise
    except RuntimeError as error:
        shape = "x".join(map(str, image_shape))
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{name} cannot read {shape} images (channels x height x width): {reason}; "
            f"choose a {role} made for this size, or set its in_channels: {image_shape[0]}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    if logits.shape != (1, num_classes):
        slot = "model.student" if role == "student" else "model.teacher.network"
        raise UsageError(
            f"{name} returns {logits.shape[-1]} logits but the data has {num_classes} classes; "
            f"set {slot}.init_args.num_classes: {num_classes}"
        )


def _check_finite(values: Mapping[str, float], where: str) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise NumericalError(
                f"{name} is {value} at {where}; lower the learning rate or the term's weight, or train in float32. "
                "The last resume point is from before"
            )
