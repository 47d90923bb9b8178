"""The small parts that several networks share, and how their weights start.

Shapes: B images, C channels, H x W pixels. No activation works in place: a feature that a hook has tapped
must not change after the hook has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Chain(nn.Module):
    """Named modules, each fed with the output of the one before: a network whose parts can be tapped by name.

    Unlike `torch.nn.Sequential` it cannot be sliced, which fails for subclasses with their own constructor.

    Args:
        parts: the modules in the order in which they run.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, image: Tensor) -> Tensor:
        """Image ``[B, C, H, W]`` -> logits ``[B, K]``."""
        features = image
        for part in self.children():
            features = part(features)
        return features


class GlobalAveragePool(nn.Module):
    """Mean over all pixels of each channel, ``[B, C, H, W]`` -> ``[B, C]``, for images of any size."""

    def forward(self, features: Tensor) -> Tensor:
        """Average the map of each channel."""
        return features.mean(dim=(2, 3))


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU, with 'same' padding for odd kernels at stride 1.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        kernel_size: odd side of the kernel.
        stride: step of the convolution.
        groups: groups of the convolution; ``in_channels`` makes it depthwise.
        activation: class of the activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        padding = kernel_size // 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            activation(),
        )


def he_initialize(network: nn.Module, linear_std: float | None = None) -> None:
    """Draw convolutions from a normal distribution of variance 2 / fan-out (He et al. 2015), biases zero.

    Args:
        network: the network to initialise in place.
        linear_std: standard deviation of the linear weights; ``None`` keeps PyTorch's default for them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)


def glorot_initialize(network: nn.Module) -> None:
    """Start convolutions and linear layers as Keras does: Glorot uniform weights (2010), zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
