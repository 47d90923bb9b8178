"""The training system that all methods share: who learns, from whom, and what is logged and saved.

Shapes: B images, K classes.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from kdlab.errors import KDLabError, UsageError
from kdlab.losses import LogitLoss
from kdlab.methods.checks import blank_batch, check_scalar, looking_only, try_network
from kdlab.methods.evaluation import Evaluation
from kdlab.methods.optimization import Optimization, OptimizerFactory, SchedulerFactory
from kdlab.methods.saving import TeacherlessCheckpoint
from kdlab.methods.training_log import StepLoss, TrainingLog
from kdlab.models.taps import Taps
from kdlab.teachers import CachedTeacher, Teacher
from kdlab.teachers.views import used_rows
from kdlab.types import Batch, Outputs
from kdlab.weights import digest

log = logging.getLogger(__name__)


class Method(TrainingLog, Evaluation, Optimization, TeacherlessCheckpoint, ABC):
    """A way for a student to learn, alone or from a teacher.

    A subclass says which terms make up the loss, in `losses`. Everything else is done here, once: forward
    passes, the sum, logging of each term as ``train/<name>_loss``, validation and test, the optimizer over
    what is trained, checkpoints without the teacher.

    Args:
        student: the network that is trained, image -> logits.
        teacher: where targets come from.
        optimizer: SGD by default: momentum 0.9, weight decay 5e-4, learning rate 0.05.
        lr_scheduler: stepped once per epoch; None keeps the learning rate.
        seed: of dropout and other randomness inside a step, and of what `prepare` builds; the command line sets it to
            seed_everything.
    """

    streams = 1  # how many differently shuffled batches a step takes, one behind the other

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None = None,
        optimizer: OptimizerFactory = lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4),
        lr_scheduler: SchedulerFactory | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.student = student
        # whatever it was built with, it only answers: no part of it is trained or moves its statistics
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.optimizer_factory = optimizer
        self.lr_scheduler_factory = lr_scheduler
        self.seed = seed
        self._epoch_told = -1
        self._teachers_digest: list[str] = []  # known when training starts
        self.tap()

    @abstractmethod
    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms of the loss, already weighted; their sum is minimised.

        Pure: no forward pass, no logging.

        Args:
            student: ``logits`` ``[B, K]`` and the tapped features, with gradients.
            teacher: ``logits`` ``[B, K]`` and the tapped features, without gradients; None where the method has
                no teacher.
            batch: ``label`` is ``[B]`` class indices, or ``[B, K]`` class weights after mixup.
        """

    def tap(self, student_layers: Sequence[str] = (), teacher_layers: Sequence[str] = ()) -> None:
        """Ask for the features of these layers, by module path; `losses` finds them in ``features``."""
        self.taps = Taps(self.student, student_layers)
        if teacher_layers:
            assert self.teacher is not None
            self.teacher.tap(teacher_layers)

    def prepare(self, student: Outputs, teacher: Outputs | None) -> None:
        """Build what depends on the shapes of features, as adapters; called once, before training.

        Args:
            student: the student's outputs for one blank image.
            teacher: the teacher's.
        """

    @property
    def networks(self) -> list[nn.Module]:
        """The trained networks that a step calls, each a whole for `torch.compile`."""
        return [self.student]

    @property
    def single_methods(self) -> list["Method"]:
        """The methods that learn side by side: those of an ensemble, or this one."""
        return [self]

    @property
    def reaches_whole_student(self) -> bool:
        """Whether every step has a gradient for all parameters of the student."""
        return True

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return the teacher's networks, each with the share of the training images about which it was asked."""
        return [] if self.teacher is None else self.teacher.asked_networks()

    @property
    def logit_losses(self) -> list[LogitLoss]:
        """The losses on logits that are trained with, those of members included."""
        return [module for module in self.modules() if isinstance(module, LogitLoss)]

    # -- forward passes -----------------------------------------------------------------------------------

    def ask_student(self, batch: Batch) -> Outputs:
        """Return the student's outputs, with gradients."""
        return self.taps(batch.image)

    @torch.no_grad()
    def ask_teacher(self, batch: Batch) -> Outputs | None:
        """Return the teacher's outputs, without gradients; None where there is no teacher."""
        return None if self.teacher is None else self.teacher.teach(batch)

    # -- training -----------------------------------------------------------------------------------------

    def step_loss(self, batch: Batch) -> StepLoss:
        """Return the loss of a batch, with what it is made of.

        Raises:
            UsageError: if `losses` returns no dict of scalars, or nothing that can be learnt from.
        """
        student, teacher = self.ask_student(batch), self.ask_teacher(batch)
        terms = self.losses(student, teacher, batch)
        if not isinstance(terms, dict):
            raise UsageError(
                f"{type(self).__name__}.losses returned a {type(terms).__name__}; return a dict: name -> scalar tensor"
            )
        for name, term in terms.items():
            check_scalar(f"{type(self).__name__}: the {name} term", term)
        if not terms:
            raise UsageError(f"{type(self).__name__}.losses returned no term; return one or more by name")
        loss = reduce(add, terms.values())
        if not loss.requires_grad:
            raise UsageError(
                f"{type(self).__name__}: no term of the loss has a gradient, so there is nothing to learn; leave out "
                "what cuts it off in the student or the loss: detach, no_grad, argmax, whole numbers"
            )
        target = batch.label if batch.label.dim() == 1 else batch.label.argmax(dim=-1)
        accuracy = (student.logits.detach().argmax(dim=-1) == target).float().mean()
        return StepLoss(loss, terms, accuracy, student, teacher)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch and keep its terms for the log."""
        loss = self.step_loss(batch)
        self.record_step(loss, batch, batch_idx)
        return (
            loss.total if self.trainer.accumulate_grad_batches == 1 else loss.total * self._accumulated_share(batch_idx)
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step; then teachers that follow their student do so."""
        super().optimizer_step(*args, **kwargs)
        self.update_teachers()

    def update_teachers(self) -> None:
        """Show the student after a step to the teacher."""
        if self.teacher is not None:
            self.teacher.update(self.student)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make losses and randomness of this step a function of the run's seed and position: a resume repeats it."""
        if self._epoch_told != self.current_epoch:  # Lightning's epoch hook is not called in a resumed epoch
            self._epoch_told = self.current_epoch
            for loss in self.logit_losses:
                loss.set_epoch(self.current_epoch)
        self._draw_by(self.current_epoch, batch_idx, self.global_rank)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 (any attribute)
        """Set an attribute. The hook that runs is noted by Lightning 40 times in a step: no parameter to look for."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _draw_by(self, *counters: int | str) -> None:
        """Make the random numbers that follow a function of the run's seed and of `counters`."""
        key = " ".join(map(str, (self.seed, *counters)))
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
        torch.default_generator.manual_seed(seed)  # torch.manual_seed visits every backend: 100 times slower
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)

    def _accumulated_share(self, batch_idx: int) -> float:
        """What this batch counts among those that a step accumulates, times their number, by which Lightning divides.

        Images count equally, so the step is that of one large batch, also where the epoch's last batch is smaller, or
        its last step has fewer batches.
        """
        batches = self.trainer.accumulate_grad_batches
        loader: Any = self.trainer.train_dataloader  # a BatchLoader
        first = batch_idx - batch_idx % batches
        together: int = loader.images_in(first, min(first + batches, int(self.trainer.num_training_batches)))
        own: int = loader.images_in(batch_idx, batch_idx + 1)
        return batches * own / together

    # -- before training ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load the teacher, try every network on one blank image of the data's shape, and prepare for training."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.make_metrics(data.num_classes)
        self.check_networks(data.image_shape, data.num_classes, required=stage == "fit")
        if stage != "fit":
            return
        if self.teacher is not None:
            self.teacher.start(self.student)
        with looking_only(self):
            batch = blank_batch(data.image_shape, like=self.student, images=self.streams)
            self._draw_by("prepare")  # with one process as with several, which Lightning seeds anew
            self.prepare(self.ask_student(batch), self.ask_teacher(batch))
        unchanging = [part for part in self.modules() if isinstance(part, Teacher) and not part.learns]
        self._teachers_digest = [digest(teacher) for teacher in unchanging]
        # DDP reads this: a teacher that never changes is equal everywhere and needs no broadcast
        tensors = [*self.named_parameters(), *self.named_buffers()]
        unsaved = tuple(self.unsaved())
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in tensors if name.startswith(unsaved)]
        if self.trainer.lightning_module is self:  # last of all, and not for a member of an ensemble: it is part of it
            self._let_teachers_remember()

    def _let_teachers_remember(self) -> None:
        """Tell all teachers, however deep, that training images are next: what came before was made up."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        device = self.trainer.strategy.root_device
        for part in self.modules():
            if isinstance(part, Teacher):
                part.remember(data, str(self.trainer.precision), device)
        remembering = [part for part in self.modules() if isinstance(part, CachedTeacher) and part.file is not None]
        if not remembering:
            return
        loader, epochs = data.train_dataloader(), self.trainer.max_epochs or -1
        for part in remembering:
            if epochs > 0:
                part.expect(used_rows(data, loader.draw, epochs))
            if part.ahead:
                with self.trainer.precision_plugin.train_step_context():
                    part.ask_ahead(data, loader.split, data.eval_batch_size, device)

    def check_networks(self, image_shape: tuple[int, int, int], num_classes: int, required: bool) -> None:
        """Load the teacher and see that every network fits the data.

        Args:
            image_shape: (C, H, W) of the data.
            num_classes: K of the data.
            required: whether a teacher that cannot be loaded is an error; otherwise it is only said.

        Raises:
            KDLabError: if a network does not fit, or a required teacher cannot be loaded.
        """
        try_network(self.student, "model.student", image_shape, num_classes)
        if self.teacher is None:
            return
        try:
            self.teacher.load()
        except KDLabError as error:
            if required:
                raise
            log.warning("the student is tested without its teacher: %s", error)
        if self.teacher.ready:
            try_network(self.teacher, "model.teacher", image_shape, num_classes)
