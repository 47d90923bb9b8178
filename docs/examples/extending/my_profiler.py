"""A profiler: how many weights of the student are practically zero."""

from dataclasses import dataclass

from torch import Tensor, nn

from kdlab.profiling.base import Profiler
from kdlab.profiling.results import Measurement


@dataclass(frozen=True)
class SparsityProfile(Measurement):
    """Sparsity of a network.

    Attributes:
        near_zero_share: share of its parameters below the threshold, 0 ... 1.
        threshold: of the absolute value.
    """

    near_zero_share: float
    threshold: float

    def metrics(self) -> dict[str, float | None]:
        """What loggers get, as ``profile/near_zero_share``."""
        return {"near_zero_share": self.near_zero_share}


class SparsityProfiler(Profiler):
    """Count the parameters of the student that are nearly zero; the result is in result.json under ``sparsity``.

    Args:
        threshold: below which an absolute value counts.
    """

    section = "sparsity"
    headline = ("near_zero_share",)

    def __init__(self, threshold: float = 0.001) -> None:
        super().__init__()
        self.threshold = threshold

    def measure(self, network: nn.Module, image: Tensor) -> SparsityProfile:
        """Return the sparsity of `network`, which is a copy in eval mode."""
        parameters = nn.utils.parameters_to_vector(network.parameters())
        return SparsityProfile(float((parameters.abs() < self.threshold).float().mean()), self.threshold)
