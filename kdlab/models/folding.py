"""Networks that only answer, with their batch norms folded into the convolutions and linear layers before them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

_LARGEST_ERROR = 1e-9  # relative, in float64, where folding rounds to about 1e-14


class Folded:
    """A copy of a network with the same answers up to rounding, and less to compute.

    In evaluation mode a batch norm is an affine map of each channel: scaling the weights before it does the same
    (Jacob et al., Quantization and training of neural networks, 2018, section 3.2). A plain object, not a module, so
    that nobody lists, saves or moves the copy's weights along with those of the network.

    Args:
        network: in evaluation mode; image ``[B, C, H, W]`` -> logits ``[B, K]``. It is not changed.
        image: ``[B, C, H, W]``, some that both must answer alike.

    Attributes:
        network: the copy, or the network itself where nothing can be folded: there is no batch norm behind a
            convolution, `torch.fx` cannot follow its ``forward``, or the copy would answer something else.
    """

    def __init__(self, network: nn.Module, image: Tensor) -> None:
        self.network = _fold(network, image) or network

    def __call__(self, image: Tensor) -> Tensor:
        """Return the logits ``[B, K]``."""
        logits: Tensor = self.network(image)
        return logits


def _fold(network: nn.Module, image: Tensor) -> nn.Module | None:
    if not _num_norms(network) or {parameter.dtype for parameter in network.parameters()} != {torch.float32}:
        return None
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        try:
            exact, sample = copy.deepcopy(network).double(), image.double()
            folded = fuse(exact)
            said, expected = folded(sample), exact(sample)
        except Exception:  # whatever the network's own code does when torch.fx traces it, or in float64
            return None
        alike = bool((said - expected).abs().max() <= _LARGEST_ERROR * expected.abs().max())  # not where there is a NaN
    return folded.float() if alike and _num_norms(folded) < _num_norms(network) else None


def _num_norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())
