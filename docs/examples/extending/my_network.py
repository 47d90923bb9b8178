"""A network: two convolutions for small grey or colour images."""

from torch import Tensor, nn


class TwoConvolutions(nn.Module):
    """Image ``[B, C, H, W]`` -> logits ``[B, K]``.

    Args:
        num_classes: K; filled in from the data.
        in_channels: C; filled in from the data.
        width: channels of both convolutions.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Average the maps, then classify."""
        logits: Tensor = self.classifier(self.features(image).mean(dim=(-2, -1)))
        return logits
