"""A teacher: it shows what it says about an image and its mirror image, averaged."""

from torch import Tensor, nn

from kdlab.teachers import FrozenTeacher
from kdlab.types import Batch, Outputs


class TwoSided(FrozenTeacher):
    """A frozen teacher that looks at each image from both sides.

    Args:
        network: the architecture.
        checkpoint: file with its weights.
        recipe: config file that trains it.
    """

    def __init__(self, network: nn.Module, checkpoint: str | None = None, recipe: str | None = None) -> None:
        super().__init__(network, checkpoint, recipe)

    def forward(self, batch: Batch) -> Outputs:
        """Answer with the mean of both ``[B, K]`` logits."""
        mirrored: Tensor = batch.image.flip(-1)
        both = super().forward(batch).logits + super().forward(batch._replace(image=mirrored)).logits
        return Outputs(both / 2)

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return the network twice: that is what an answer costs."""
        return super().asked_networks() * 2

    def teach(self, batch: Batch) -> Outputs:
        """Answer training images alike; the short cut of `FrozenTeacher` would skip `forward`."""
        return self.forward(batch)
