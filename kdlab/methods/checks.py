"""Checks before and during training: do the networks fit the data, are the numbers numbers."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdlab.blame import users_mistake
from kdlab.errors import KDLabError, NumericalError, UsageError
from kdlab.teachers import Teacher
from kdlab.types import Batch


def blank_batch(image_shape: tuple[int, int, int], like: nn.Module, images: int = 1) -> Batch:
    """Return a batch of black images, where the parameters of `like` are and of their type.

    Args:
        image_shape: (C, H, W).
        like: a module.
        images: B.
    """
    parameter = next(like.parameters(), torch.zeros(0))
    image = torch.zeros(images, *image_shape, device=parameter.device, dtype=parameter.dtype)
    zeros = torch.zeros(images, dtype=torch.long, device=parameter.device)
    return Batch(image, zeros, zeros, zeros)


@contextmanager
def looking_only(*modules: nn.Module) -> Iterator[None]:
    """Run the block without gradients and with `modules` in eval mode; afterwards each part is in its mode again."""
    modes = {part: part.training for module in modules for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def try_network(network: nn.Module, slot: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Answer two blank images, so that a network that does not fit the data is found before anything is written.

    Args:
        network: image -> logits, or a teacher.
        slot: where the config names it, as ``model.student``.
        image_shape: (C, H, W) of the data.
        num_classes: K of the data.

    Raises:
        UsageError: if it cannot read such images, or has another number of classes.
    """
    batch = blank_batch(image_shape, like=network, images=2)
    name = "the teacher" if isinstance(network, Teacher) else type(network).__name__
    try:
        with looking_only(network):
            answer = network(batch) if isinstance(network, Teacher) else network(batch.image)
    except KDLabError:
        raise
    except Exception as error:  # any network may be named in a config, and it can do anything
        shape = "x".join(map(str, image_shape))
        reason = (str(error) or type(error).__name__).splitlines()[0]
        reason = users_mistake(error) or reason
        raise UsageError(
            f"{name} cannot read {shape} images (channels x height x width): {reason}; "
            f"choose a network made for this size in {slot}, or set its in_channels: {image_shape[0]}"
        ) from error
    logits = getattr(answer, "logits", answer) if isinstance(network, Teacher) else answer
    if not isinstance(logits, Tensor):
        raise UsageError(f"{name} returns a {type(logits).__name__}, but a classifier returns logits [B, K]; choose "
                         f"another network in {slot}")  # fmt: skip
    if logits is answer and isinstance(network, Teacher):
        raise UsageError(f"{name} returns a Tensor, but a teacher answers with kdlab.types.Outputs; mend its forward")
    if logits.dim() != 2 or len(logits) != 2:
        raise UsageError(
            f"{name} returns {list(logits.shape)} for 2 images, but a classifier returns a row of logits for each: "
            f"[2, {num_classes}]; choose another network in {slot}, or mend its forward"
        )
    if logits.shape[1] != num_classes:
        slot = f"{slot}.network" if isinstance(network, Teacher) else slot
        raise UsageError(
            f"{name} returns {logits.shape[-1]} logits but the data has {num_classes} classes; "
            f"set {slot}.init_args.num_classes: {num_classes}"
        )


def check_scalar(name: str, loss: object) -> None:
    """See that a loss is one.

    Raises:
        UsageError: if it is no tensor of one number.
    """
    if not isinstance(loss, Tensor) or loss.dim():
        what = f"has shape {list(loss.shape)}" if isinstance(loss, Tensor) else f"is a {type(loss).__name__}"
        raise UsageError(f"{name} {what}, but it must be a scalar tensor; take its mean over the batch")


def check_finite(values: Mapping[str, float], where: str) -> None:
    """Stop when a loss is no number.

    Args:
        values: losses by name.
        where: in words, as ``step 3 (epoch 0)``.

    Raises:
        NumericalError: for the first one that is not finite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise NumericalError(
                f"{name} is {value} at {where}; lower the learning rate or the term's weight, or train in float32"
            )
