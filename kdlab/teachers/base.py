"""What a teacher is: the place where targets come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.types import Batch, Outputs


class Images(Protocol):
    """Images of one split; `kdlab.data.Split` is one."""

    @property
    def images(self) -> Tensor:
        """``[N, C, H, W]`` ``uint8``."""

    @property
    def labels(self) -> Tensor:
        """``[N]``."""

    @property
    def index(self) -> Tensor:
        """``[N]`` position of each image in the training file."""


class TrainingImages(Protocol):
    """What a teacher that remembers must know of the data; `kdlab.data.ImageData` is one."""

    @property
    def num_train_images(self) -> int:
        """In the whole training file; ``Batch.index`` is below it."""

    @property
    def num_views(self) -> int | None:
        """How many different inputs one image can become; None where they cannot be counted."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def train_split(self) -> Images:
        """The images that are trained on."""

    @property
    def augmentation(self) -> nn.Module | None:
        """Random views of the training images."""

    @property
    def mixing(self) -> nn.Module | None:
        """Of several images into one."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Of each channel, subtracted from pixels in [0, 1]."""

    @property
    def std(self) -> tuple[float, ...]:
        """Of each channel, that divides them."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the training file."""

    def training_view(self, batch: Batch) -> Batch:
        """Return what networks read of a batch of ``uint8`` images in training."""


class Teacher(nn.Module, ABC):
    """Answers a batch with the outputs that a student shall match.

    The method that owns a teacher calls it without gradients and keeps it out of checkpoints, out of the
    optimizer and out of the buffers that DDP broadcasts.

    Attributes:
        learns: whether the teacher changes along with the student; then it is saved and resumed like the student.
        network: the one that answers; None where there are several, or it is not there yet.
    """

    learns = False
    network: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(type(self), "network"):  # a subclass may have it as a property
            self.network = None

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Answer a batch of normalised images.

        Args:
            batch: ``image`` is ``[B, C, H, W]`` float, the very view that the student sees.

        Returns:
            Outputs with ``[B, K]`` logits.
        """

    def teach(self, batch: Batch) -> Outputs:
        """Answer a batch of training images; only a teacher that remembers its answers does so in another way."""
        outputs: Outputs = self(batch)
        return outputs

    @property
    def ready(self) -> bool:
        """Whether the teacher can answer: False while its weights are still to be loaded."""
        return True

    @property
    def answers_at_once(self) -> bool:
        """Whether an answer of its own (not of teachers inside) takes the device alone: no look at what is missing."""
        return True

    @property
    def untrained(self) -> bool:
        """Whether random weights stand in for those of the teacher, or of one inside it."""
        return any(part.untrained for part in self.modules() if isinstance(part, Teacher) and part is not self)

    @property
    def innermost(self) -> "Teacher":
        """The one who answers: this teacher, unless it repeats what another one says."""
        return self

    @property
    def answering(self) -> nn.Module:
        """The network that answers, or the whole teacher where that is not a single one."""
        teacher = self.innermost
        return teacher if teacher.network is None else teacher.network

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return the networks that answer, as often as they do, each with the share of the training images it is asked.

        Without an own network those of the teachers inside this one.

        Raises:
            UsageError: if there are none of these either.
        """
        if self.network is not None:
            return [(self.network, 1.0)]
        inside = [part for part in self.children() if isinstance(part, Teacher)]
        if not inside:
            raise UsageError(f"{type(self).__name__} names no network; set self.network, or override asked_networks")
        return [asked for teacher in inside for asked in teacher.asked_networks()]

    def load(self) -> None:
        """Load what must be loaded before the first answer; called once, before training."""

    def tap(self, layers: Sequence[str]) -> None:
        """Answer with the features of these layers, by module path, from now on.

        Raises:
            UsageError: if there is no such layer, or this kind of teacher has no layers of its own.
        """
        raise UsageError(f"{type(self).__name__} has no layers to tap; give model.teacher a single network")

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features are part of the answer."""
        return ()

    def equals(self, other: "Teacher") -> bool:
        """Whether the other one is sure to give the same answers, so that one may be asked for both."""
        return False

    def soften(self, temperature: float) -> None:
        """Learn at which temperature the answers will be compared; only a mean of several answers needs to know."""

    def start(self, student: nn.Module) -> None:
        """Meet the student; called once, before training."""

    def remember(self, images: TrainingImages, precision: str, device: torch.device) -> None:
        """Hear what will be asked in training, just before it starts; only a teacher that remembers needs to know.

        Args:
            images: the data.
            precision: of the teacher's forward passes, as the Trainer names it.
            device: where the answers will be needed.
        """

    def update(self, student: nn.Module) -> None:
        """See the student after each optimizer step; only a teacher that learns changes."""

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever an enclosing module asks for."""
        return super().train(False)
