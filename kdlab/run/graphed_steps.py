"""A whole training step as one CUDA graph: what a small network needs to keep a GPU busy.

Lightning takes a step by calling hooks of the method. While a step is a graph, the hooks of `StepGraph` stand in their
place, and nothing is left for them to do but to start it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.optim import SGD, Optimizer

from kdlab.errors import UsageError
from kdlab.methods import Method
from kdlab.methods.training_log import StepLoss
from kdlab.run.fast import CompiledNetworks
from kdlab.teachers import CachedTeacher, Teacher
from kdlab.types import Batch, Outputs

log = logging.getLogger(__name__)
T = TypeVar("T")

WARM_UP = 3  # usual steps: then kernels are chosen and networks compiled
UNSEEN_HOOKS = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
REPLACED_HOOKS = ("training_step", "optimizer_step", "optimizer_zero_grad", "backward")  # of a method
MODES_WITH_GRAPHS = ("reduce-overhead", "max-autotune")  # of torch.compile


class CUDACapture:
    """Captures CUDA graphs, in a stream of its own: the default stream cannot be captured.

    Until `close`, all that this thread asks of the device goes through that stream.

    Args:
        device: a GPU.
    """

    device_type = "cuda"

    def __init__(self, device: torch.device) -> None:
        self._before = torch.cuda.current_stream(device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(self._before)
        torch.cuda.set_stream(self._stream)

    def capture(self, job: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Call `job` once without running its kernels; return what runs them, and the tensors that they then fill."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = job()
        return graph.replay, result

    def close(self) -> None:
        """Go back to the stream of before."""
        torch.cuda.set_stream(self._before)
        with suppress(RuntimeError):  # of a device that has failed: that was said
            self._before.wait_stream(self._stream)


class StepGraph:
    """The training step of an epoch as one graph, and the hooks through which Lightning takes it.

    Args:
        capture: what makes the graph.
        trainer: of the run.
        method: whose step it is.
        batch: a whole batch; its tensors have the shapes of all that follow.
    """

    def __init__(self, capture: CUDACapture, trainer: Trainer, method: Method, batch: Batch) -> None:
        self._capture, self._trainer, self._method = capture, trainer, method
        self._batch = Batch(*(part.clone() for part in batch))
        self._run: Callable[[], None] | None = None
        self._loss: StepLoss
        self._counted: list[tuple[CachedTeacher, int, int]] = []  # images answered and computed in each step

    def stand_in(self) -> None:
        """Take the place of the method's own hooks."""
        vars(self._method).update(
            optimizer_step=self.optimizer_step,
            training_step=self.training_step,
            optimizer_zero_grad=_nothing,
            backward=_nothing,
        )

    @staticmethod
    def give_back(method: LightningModule) -> None:
        """Bring the method's own hooks back."""
        for hook in REPLACED_HOOKS:
            vars(method).pop(hook, None)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: object, closure: Callable[[], object]) -> None:
        """Take the step; the first one is captured only here, where losses and random numbers know the epoch."""
        if self._run is None:
            self._make()
        closure()  # calls training_step, and the two hooks that do nothing
        self._method.update_teachers()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Run the graph on a batch, and record its losses as those of any step."""
        assert self._run is not None
        for own, given in zip(self._batch, batch, strict=True):
            own.copy_(given)
        self._run()
        for teacher, answered, computed in self._counted:
            teacher.images_answered += answered
            teacher.images_computed += computed
        self._method.record_step(self._loss, batch, batch_idx)
        return self._loss.total

    def _make(self) -> None:
        remembering = [part for part in self._method.modules() if isinstance(part, CachedTeacher)]
        before = [(part.images_answered, part.images_computed) for part in remembering]
        try:
            self._run, self._loss = self._capture.capture(self._take)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = error.__context__ or error  # a capture that has failed fails again when it ends
            reason = str(first).partition("\n")[0]
            raise UsageError(
                f"GraphedSteps: a step of {type(self._method).__name__} cannot be a CUDA graph ({reason}); a step must "
                "not wait for numbers, as .item() does; take GraphedSteps out of trainer.callbacks"
            ) from error
        for part, (answered, computed) in zip(remembering, before, strict=True):  # counted by Python, without an answer
            self._counted.append((part, part.images_answered - answered, part.images_computed - computed))
            part.images_answered, part.images_computed = answered, computed

    def _take(self) -> StepLoss:
        """What Lightning does in a step, without its hooks."""
        method, trainer = self._method, self._trainer
        optimizer = trainer.optimizers[0]
        with trainer.precision_plugin.train_step_context():
            loss = method.step_loss(self._batch)
        optimizer.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        method.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        optimizer.step()
        terms = {name: term.detach() for name, term in loss.terms.items()}
        return StepLoss(loss.total.detach(), terms, loss.accuracy, Outputs(loss.student.logits.detach()), None)


class GraphedSteps(Callback):
    """Start each training step as one CUDA graph, captured anew in every epoch.

    A step of a small network is hundreds of kernels that run for microseconds each, and Python takes longer to start
    them than they take. A graph starts them all at once. In it are student, teacher, losses, backward pass, clipping
    and optimizer; loader, augmentation, log and callbacks are not. Its kernels are those of the usual step.

    Within an epoch nothing may change in a step but its batch and its random numbers; what changes from epoch to epoch
    (learning rates, weights of losses, the stages of FitNet) may. Usual steps are the first three, the first of each
    epoch, those of smaller batches, and all while answers of a remembered teacher are missing.

    Raises:
        UsageError: before training, where the device is no GPU, or a step is more than this; in training, where a step
            does what cannot be captured, such as waiting for a number.
    """

    capture_by = CUDACapture

    def __init__(self) -> None:
        self._capture: CUDACapture | None = None
        self._step: StepGraph | None = None
        self._teachers: list[Teacher] = []
        self._usual = 0  # whole batches to come that are not captured
        self._told = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that steps can be captured, before the run writes anything."""
        if stage == "fit" and (reason := self._refusal(trainer, pl_module)):
            raise UsageError(f"GraphedSteps: {reason}, or take GraphedSteps out of trainer.callbacks")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train in a stream that can be captured, with optimizers whose counters live on the device."""
        self._capture = self.capture_by(pl_module.device)
        self._teachers = [part for part in pl_module.modules() if isinstance(part, Teacher)]
        self._usual = WARM_UP
        for optimizer in trainer.optimizers:
            _count_on_device(optimizer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the graph of the last epoch go; what is new in this one, optimizers set up in a usual step."""
        self._step = None
        self._usual = max(self._usual, 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Choose between the graph and a usual step."""
        method, loader = cast("Method", pl_module), cast("Any", trainer.train_dataloader)
        whole = len(batch.label) == loader.batch_size * loader.streams
        if not whole or self._usual or self._waits_for_a_teacher():
            self._usual = max(self._usual - whole, 0)
            StepGraph.give_back(method)
            return
        if self._step is None:
            assert self._capture is not None
            self._step = StepGraph(self._capture, trainer, method, batch)
        self._step.stand_in()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out of it what only a GPU can continue."""
        for state in checkpoint.get("optimizer_states", ()):
            for group in state["param_groups"]:
                if "capturable" in group:
                    group["capturable"] = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave method and device as they were."""
        self._undo(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave method and device as they were."""
        self._undo(pl_module)

    def _undo(self, pl_module: LightningModule) -> None:
        StepGraph.give_back(pl_module)
        self._step = None
        if self._capture is not None:
            self._capture.close()
            self._capture = None

    def _waits_for_a_teacher(self) -> bool:
        waits = not all(teacher.answers_at_once for teacher in self._teachers)
        if waits and not self._told:
            log.info("steps are no CUDA graphs while answers of the teacher are missing; `kdlab cache` fills them in")
            self._told = True
        return waits

    def _refusal(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        """Say why steps cannot be captured and what to do; None where they can."""
        device = trainer.strategy.root_device.type
        if device != self.capture_by.device_type:
            return f"CUDA graphs are of NVIDIA GPUs, and the device is {device}; set trainer.accelerator gpu"
        if trainer.world_size > 1:
            return f"a graph is one process's, and there are {trainer.world_size}; set trainer.devices 1"
        if trainer.accumulate_grad_batches > 1:
            return f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}; set it to 1"
        if trainer.precision == "16-mixed":
            return "trainer.precision 16-mixed looks at the gradients of each step; set bf16-mixed"
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # by a connector of Lightning's
        if any(isinstance(each, CompiledNetworks) and each.mode in MODES_WITH_GRAPHS for each in callbacks):
            return f"CompiledNetworks with mode {' or '.join(MODES_WITH_GRAPHS)} makes graphs of its own; leave it out"
        for hook in REPLACED_HOOKS:
            if getattr(type(pl_module), hook) is not getattr(Method, hook):
                return f"{type(pl_module).__name__}.{hook} would run in the usual steps alone; leave it out"
        if any(isinstance(each, GradientAccumulationScheduler) for each in callbacks):
            return "GradientAccumulationScheduler takes several batches for a step; leave it out"
        for owner, base in ((pl_module, LightningModule), *((each, Callback) for each in callbacks)):
            for hook in UNSEEN_HOOKS:
                if getattr(type(owner), hook) is not getattr(base, hook):
                    return f"{type(owner).__name__}.{hook} is not called in a graph; leave it out"
        return None


def _count_on_device(optimizer: Optimizer) -> None:
    """Let an optimizer that counts its steps, as Adam does, do so where a graph can.

    Raises:
        UsageError: for one that is not known to: what it counts in Python would stand still in a graph.
    """
    if not isinstance(optimizer, SGD) and not all("capturable" in group for group in optimizer.param_groups):
        raise UsageError(
            f"GraphedSteps: {type(optimizer).__name__} may count its steps in Python, where a graph cannot; choose SGD "
            "or an optimizer with the argument capturable, as Adam, or take GraphedSteps out of trainer.callbacks"
        )
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    for parameter, state in optimizer.state.items():  # of a run that is continued
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, torch.float32)


def _nothing(*args: object, **kwargs: object) -> None:
    """Do what is in the graph."""
