"""What losses on logits and losses on features look like.

Shapes: B samples, K classes; features are maps [B, C, H, W] or vectors [B, D].
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from kdlab.errors import UsageError

EXTREME = 1e6  # of a temperature or its inverse: its square, and logits divided by it, must stay numbers in float32


class LogitLoss(nn.Module, ABC):
    """How far the student's logits are from the teacher's.

    A loss takes logits, never probabilities, computes in float32 (float64 stays float64) whatever autocast
    says, returns a scalar, and is 0 where there is nothing left to match.

    Attributes:
        temperature: what divides the logits of both, may be set anew; None for a loss that has no such number.
        temperature_given: whether it was chosen, so that a method must not replace it; see `take_temperature`.
    """

    temperature: float | None = None
    temperature_given = True

    def take_temperature(self, given: float | None, default: float) -> None:
        """Set the temperature that was given; without one the default, which a method may replace.

        Raises:
            UsageError: if it is not a positive number.
        """
        self.temperature = positive_temperature(default if given is None else given)
        self.temperature_given = given is not None

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            student: ``[B, K]`` logits that are trained.
            teacher: ``[B, K]`` logits to match.
            labels: ``[B]`` class indices, for losses whose definition needs them.
        """

    def set_epoch(self, epoch: int) -> None:
        """Hear which epoch begins, counted from 0; called before its first batch, after a resume as well."""


class FeatureLoss(nn.Module, ABC):
    """How far features of the student are from features of the teacher.

    Computes in float32 (float64 stays float64) whatever autocast says, returns a scalar, and is 0 where there is
    nothing left to match. A subclass fills in `compare`.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss.

        Args:
            student: ``[B, C, H, W]`` or ``[B, D]`` features that are trained.
            teacher: features to match, of the same B samples.
        """
        with without_autocast(student):
            return self.compare(in_float32(student), in_float32(teacher))

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of features that are at least float32, where autocast is off."""


def in_float32(tensor: Tensor) -> Tensor:
    """A half-precision tensor as float32; float32 and float64 as they are.

    exp, log, squares and squared temperatures leave the range of half precision long before their arguments do
    (T = 20 and a divergence of 164 already exceed the largest float16).
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def without_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which matrix products on the device of `tensor` keep their type: autocast would halve it."""
    return torch.autocast(tensor.device.type, enabled=False)


def nonnegative(name: str, value: float) -> float:
    """Return `value`, the argument called `name`, if it can be a factor.

    Raises:
        UsageError: if it is negative or not finite.
    """
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} is {value:g}, but it must be a finite number, 0 or more")
    return value


def positive_temperature(temperature: float) -> float:
    """Return `temperature` if it can divide logits.

    Raises:
        UsageError: if it is not a positive, finite number, or float32 cannot hold the loss.
    """
    if not 0 < temperature < float("inf"):
        raise UsageError(f"temperature is {temperature:g}, but it must be a positive number; 1 to 10 is usual")
    if not 1 / EXTREME <= temperature <= EXTREME:
        raise UsageError(f"temperature is {temperature:g}, with which float32 overflows; 1 to 10 is usual")
    return temperature
