"""What a teacher is: the place where targets come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from torch import nn

from kdlab.errors import UsageError
from kdlab.types import Batch, Outputs


class Teacher(nn.Module, ABC):
    """Answers a batch with the outputs that a student shall match.

    The method that owns a teacher calls it without gradients and keeps it out of checkpoints, out of the
    optimizer and out of the buffers that DDP broadcasts.

    Attributes:
        learns: whether the teacher changes along with the student; then it is saved and resumed like the student.
    """

    learns = False

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Answer a batch of normalised images.

        Args:
            batch: ``image`` is ``[B, C, H, W]`` float, the very view that the student sees.

        Returns:
            Outputs with ``[B, K]`` logits.
        """

    @property
    def ready(self) -> bool:
        """Whether the teacher can answer: False while its weights are still to be loaded."""
        return True

    def load(self) -> None:
        """Load what must be loaded before the first answer; called once, before training."""

    def tap(self, layers: Sequence[str]) -> None:
        """Answer with the features of these layers, by module path, from now on.

        Raises:
            UsageError: if there is no such layer, or this kind of teacher has no layers of its own.
        """
        raise UsageError(f"{type(self).__name__} has no layers to tap; give model.teacher a single network")

    def soften(self, temperature: float) -> None:
        """Learn at which temperature the answers will be compared; only a mean of several answers needs to know."""

    def start(self, student: nn.Module) -> None:
        """Meet the student; called once, before training."""

    def update(self, student: nn.Module) -> None:
        """See the student after each optimizer step; only a teacher that learns changes."""

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever an enclosing module asks for."""
        return super().train(False)
