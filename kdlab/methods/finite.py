"""Every loss of a run is a number, or the run stops and says which term, at which step, why, and with which images.

A processor's losses are read in their own step. A GPU would have to wait for that: its losses are copied to the host
in passing, and read when the copy has arrived, at most `UNREAD` steps later. No checkpoint is written before all are.

Shapes: B images in a batch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kdlab.errors import NumericalError
from kdlab.types import Batch, Outputs

if TYPE_CHECKING:
    from kdlab.methods.base import Method

Answers = tuple[Outputs, Outputs | None]  # of the student, and of the teacher where there is one

UNREAD = 4  # steps whose losses a GPU may owe; their images stay in its memory
REMEDY = "lower the learning rate or the term's weight, or train in float32"


class Seen(NamedTuple):
    """A batch that was trained on.

    Attributes:
        step: number of optimizer steps before it.
        epoch: of the run.
        batch: as the student saw it.
        names: of the losses.
        values: of the losses, on the host once `copied`.
        copied: what says so; None where they are there at once.
    """

    step: int
    epoch: int
    batch: Batch
    names: tuple[str, ...]
    values: Tensor
    copied: torch.cuda.Event | None


class NotFiniteError(NumericalError):
    """A loss, or a weight, is no finite number any more.

    Attributes:
        seen: the batches of that step and of the step before it, whose gradient made the weights.
    """

    def __init__(self, message: str, seen: Iterable[Seen]) -> None:
        super().__init__(message)
        self.seen = tuple(seen)


class LossWatch:
    """Looks at the losses of each step, and remembers the last batches."""

    def __init__(self) -> None:
        self._seen: deque[Seen] = deque()  # read
        self._unread: deque[Seen] = deque()

    def add(self, step: int, epoch: int, batch: Batch, losses: Mapping[str, Tensor]) -> None:
        """Take the scalar losses of a batch; on a GPU, without waiting for them."""
        values = torch.stack([loss.detach() for loss in losses.values()]).float()
        copied = None
        if values.device.type == "cuda":
            values = values.to("cpu", non_blocking=True)  # into pinned memory
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._unread.append(Seen(step, epoch, batch, tuple(losses), values, copied))

    def look(self, method: Method, wait: bool, here: Answers | None = None) -> dict[str, float]:
        """Read the losses that have arrived, and return the last ones by name.

        Args:
            method: that is trained.
            wait: for the losses of all steps.
            here: the answers of student and teacher in the running step.

        Raises:
            NotFiniteError: for the first step with a loss that is not finite.
        """
        losses: dict[str, float] = {}
        while self._unread and self._has_arrived(self._unread[0].copied, wait):
            seen = self._unread.popleft()
            self._seen.append(seen)
            while self._seen[0].step < seen.step - 1:
                self._seen.popleft()
            losses = dict(zip(seen.names, seen.values.tolist(), strict=True))
            if not all(map(math.isfinite, losses.values())):
                where = f"{_named(losses)} at step {seen.step} (epoch {seen.epoch})"
                reason = _cause(method, seen, here if seen.copied is None else None)
                raise self._error(f"{where}; {REMEDY}" if reason is None else f"{where}: {reason}")
        return losses

    def look_at_weights(self, method: Method, state: Mapping[str, object]) -> None:
        """See that what is about to be saved can be continued.

        Raises:
            NotFiniteError: if a tensor of the state dict `state` of `method` is not finite.
        """
        tensors = ((name, value) for name, value in state.items() if isinstance(value, Tensor))
        bad = next((name for name, value in tensors if not bool(value.isfinite().all())), None)
        if bad is not None:
            cause = _weights_cause(method, method.global_step - 1)
            raise self._error(cause or f"{bad} is not finite after step {method.global_step - 1}; {REMEDY}")

    def look_at_optimizers(self, method: Method, states: Iterable[Mapping[str, Any]]) -> None:
        """See the same of the optimizers: an infinite second moment in Adam stops its weight for ever, in silence.

        Raises:
            NotFiniteError: if a tensor of one of the optimizers' state dicts is not finite.
        """
        for state in states:
            for number, values in state["state"].items():
                for name, value in values.items():
                    if isinstance(value, Tensor) and not bool(value.isfinite().all()):
                        where = f"{name} of parameter {number} in the optimizer"
                        raise self._error(f"{where} is not finite after step {method.global_step - 1}; {REMEDY}")

    def forget(self) -> None:
        """Let the batches go."""
        self._seen.clear()
        self._unread.clear()

    def _has_arrived(self, copied: torch.cuda.Event | None, wait: bool) -> bool:
        if copied is None or copied.query():  # type: ignore[no-untyped-call]
            return True
        if wait or len(self._unread) > UNREAD:
            copied.synchronize()
            return True
        return False

    def _error(self, message: str) -> NotFiniteError:
        return NotFiniteError(message, self._seen)


def _named(losses: Mapping[str, float]) -> str:
    """Say which losses are not finite: the first with its value, then the names of the others."""
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    bad = [name for name in bad if name != "loss"] or bad  # their sum goes without saying
    others = f" (and {', '.join(bad[1:])} too)" if bad[1:] else ""
    return f"{bad[0]} is {losses[bad[0]]}{others}"


def _cause(method: Method, seen: Seen, here: Answers | None) -> str | None:
    """Say where numbers that are not finite come from; None where nothing but the loss is known to be so.

    Some steps later (`here` is None) the weights have changed, and the answer of a teacher that does not learn has not.
    """
    image = _first_bad(seen.batch.image)
    if image is not None:
        index, view = int(seen.batch.index[image]), int(seen.batch.view[image])
        return f"image {index} of the training split in its view {view} is not finite; look at the augmentation"
    if here is not None:
        student, teacher = here
    else:
        student, teacher = None, None
        if method.teacher is not None and not method.teacher.learns:
            teacher = method.ask_teacher(seen.batch)
    if teacher is not None and not _all_finite(teacher):
        return "the teacher's answer is not finite; train it again, or ask it in float32"
    if student is None:
        return None
    if weights := _weights_cause(method, seen.step - 1):
        return weights
    return None if _all_finite(student) else f"the student's answer is not finite, although its weights are; {REMEDY}"


def _weights_cause(method: Method, step: int) -> str | None:
    """Say which weight is not finite after `step`, and whether its gradient was the reason; None where all are."""
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and not bool(parameter.detach().isfinite().all()):
            gradient = parameter.grad  # of that step; Lightning drops it before a validation
            if gradient is None:
                return f"{name} is not finite after step {step}, although its losses are; {REMEDY}"
            if not bool(gradient.isfinite().all()):
                return f"the gradient of {name} is not finite at step {step}, although its losses are; {REMEDY}"
            return f"{name} is not finite after step {step}, although its losses and gradients are; {REMEDY}"
    return None


def _all_finite(outputs: Outputs) -> bool:
    tensors = (outputs.logits, *outputs.features.values())
    return all(bool(tensor.isfinite().all()) for tensor in tensors) and all(map(_all_finite, outputs.members))


def _first_bad(images: Tensor) -> int | None:
    """Position of the first of ``[B, C, H, W]`` images that is not finite."""
    bad = (~images.isfinite().flatten(1).all(dim=1)).nonzero()
    return int(bad[0]) if len(bad) else None
