"""A trained network that only answers."""

from collections.abc import Callable, Sequence
from typing import Self

from torch import Tensor, nn

from kdlab.errors import IntegrityError, UsageError
from kdlab.models.folding import Folded
from kdlab.models.taps import Taps
from kdlab.teachers.base import Teacher
from kdlab.types import Batch, Outputs
from kdlab.weights import Card, load_weights


class FrozenTeacher(Teacher):
    """A network with fixed weights: no gradients, always in eval mode, never saved with the student.

    Its parameters and buffers are the same bits before and after training. A teacher in training mode would
    not be: batch norm moves its statistics even without gradients. In training its batch norms are folded into the
    convolutions of a copy, which answers the same up to rounding in less time.

    Args:
        network: the architecture, with as many classes as the data.
        checkpoint: file with its weights: a student.safetensors or a checkpoint of kdlab, or a plain PyTorch
            state dict (.pt, .pth, .safetensors). None takes the network as it was built, for example with
            pretrained weights of timm.
        recipe: config file that trains this teacher. When the checkpoint is missing, `fit` runs the recipe
            first. The checkpoint remembers the recipe: `fit` stops when the recipe has changed since.

    Raises:
        UsageError: if there is a recipe but no checkpoint to write its result to.
    """

    network: nn.Module  # never None here

    def __init__(self, network: nn.Module, checkpoint: str | None = None, recipe: str | None = None) -> None:
        super().__init__()
        if recipe is not None and checkpoint is None:
            raise UsageError(
                f"the teacher has the recipe {recipe} but no checkpoint; "
                "set checkpoint to the file that the recipe writes, runs/<experiment>/<name>/student.safetensors"
            )
        self.network = network.requires_grad_(False).eval()
        self.taps = Taps(network, ())
        self.checkpoint = checkpoint
        self.recipe = recipe
        self.card: Card = {}  # what the checkpoint says of itself
        self._untrained = False
        self._ready = checkpoint is None
        self._folded: Folded | None = None
        self.eval()

    @property
    def ready(self) -> bool:
        """Whether the weights are there."""
        return self._ready

    def load(self) -> None:
        """Load the checkpoint.

        Raises:
            IntegrityError: if it is missing, damaged, or does not fit the network.
        """
        if self._ready or self.checkpoint is None:
            return
        try:
            self.card = load_weights(self.network, self.checkpoint)
        except IntegrityError as error:
            raise IntegrityError(f"teacher: {error}{self._advice()}") from error
        self._ready = True

    def forward(self, batch: Batch) -> Outputs:
        """Answer with the ``[B, K]`` logits of the network and the features of the tapped layers."""
        if not self._ready:
            raise UsageError(f"the teacher's checkpoint {self.checkpoint} is not loaded; call load() first")
        return self.taps(batch.image)

    def teach(self, batch: Batch) -> Outputs:
        """Answer a batch of training images with folded batch norms, unless layers are tapped or it is compiled."""
        if not self._ready or self.layers or self.network._compiled_call_impl is not None:
            return super().teach(batch)
        if self._folded is None:
            self._folded = Folded(self.network, batch.image[:1])
        return Outputs(self._folded(batch.image))

    def start(self, student: nn.Module) -> None:
        """Fold anew: callbacks may have changed the layout of the weights since."""
        self._folded = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._folded = None  # it lies on the former device
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def tap(self, layers: Sequence[str]) -> None:
        """Answer with the features of these layers of the network too, beside those that were asked for before.

        Raises:
            UsageError: if there is no such layer; it lists close names.
        """
        self.taps = Taps(self.network, list(dict.fromkeys([*self.taps.layers, *layers])))

    def use_untrained(self) -> None:
        """Answer with the random weights the network was built with: for rehearsals of a few batches only."""
        self._ready = self._untrained = True

    @property
    def untrained(self) -> bool:
        """Whether it stands in for a teacher that is missing."""
        return self._untrained

    @property
    def layers(self) -> tuple[str, ...]:
        """The tapped layers."""
        return self.taps.layers

    def equals(self, other: Teacher) -> bool:
        """Whether both answer with the same network from the same checkpoint."""
        if self is other:
            return True
        return (
            isinstance(other, FrozenTeacher)
            and self.checkpoint is not None
            and self.checkpoint == other.checkpoint
            and self.recipe == other.recipe
            and repr(self.network) == repr(other.network)
        )

    def _advice(self) -> str:
        if self.recipe is not None:
            return f"; `fit` trains it where it is missing, or run: python -m kdlab fit --config {self.recipe}"
        return "; train a teacher first, for example: python -m kdlab fit --config configs/digits/teacher.yaml"
