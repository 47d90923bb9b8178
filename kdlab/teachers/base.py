"""What a teacher is: the place where targets come from."""

from abc import ABC, abstractmethod

from torch import nn

from kdlab.types import Batch, Outputs


class Teacher(nn.Module, ABC):
    """Answers a batch with the outputs that a student shall match.

    The method that owns a teacher calls it without gradients and keeps it out of checkpoints, out of the
    optimizer and out of the buffers that DDP broadcasts.
    """

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
