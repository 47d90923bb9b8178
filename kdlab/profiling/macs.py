"""How many multiply-adds one image costs."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import Tensor, nn

from kdlab.profiling.base import Profiler
from kdlab.profiling.counters import AGREEMENT, CONVENTION, THOP_STYLE, count_with_fvcore, count_with_torch, difference
from kdlab.profiling.results import Measurement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MACsProfile(Measurement):
    """Multiply-adds of one image, forward.

    Attributes:
        macs: counted by fvcore with our rules; a multiply-add is one, where "FLOPs" would be two.
        macs_torch: second opinion: torch's flop counter, halved.
        macs_difference: of the two, relative to the larger.
        macs_agree: whether they differ by 1% at most.
        macs_thop_style: `macs` plus 4 per batch-norm element and the sums of adaptive average pooling, for comparison
            with tables made that way; None where that was not asked for.
        uncounted_ops: operators that may multiply and add but that nobody counts -> how often they occur.
        uncounted_parameters: weights of two and more dimensions that multiply features in something that nobody
            counts, such as a broadcast multiplication.
        macs_doubts: why `macs` is not to be trusted, in words; empty where nothing speaks against it.
        macs_by_module: path of each module that counts -> its multiply-adds, those of its parts included.
        image_shape: (C, H, W).
        macs_convention: what is counted.
        macs_counter: who counted.
    """

    macs: int
    macs_torch: int
    macs_difference: float
    macs_agree: bool
    macs_thop_style: int | None
    uncounted_ops: dict[str, int]
    uncounted_parameters: tuple[str, ...]
    macs_doubts: tuple[str, ...]
    macs_by_module: dict[str, int]
    image_shape: tuple[int, ...]
    macs_convention: str = CONVENTION
    macs_counter: str = "fvcore"

    def metrics(self) -> dict[str, float | None]:
        """``macs``, and ``macs_thop_style`` where asked for."""
        return {"macs": self.macs, "macs_thop_style": self.macs_thop_style}


class MACsProfiler(Profiler):
    """Count the multiply-adds of the student for one image, twice, and warn where the counts differ.

    Convolution, linear, matrix product and attention count; normalisation, bias and activation do not. Operators
    that nobody counts are named, and so are weights that no counted operator uses.

    Args:
        thop_style: also report the count of the thop package: with 4 operations per batch-norm element, and one per
            element that adaptive average pooling reads or writes.
    """

    section = "macs"
    headline = ("macs",)

    def __init__(self, thop_style: bool = False) -> None:
        super().__init__()
        self.thop_style = thop_style

    def measure(self, network: nn.Module, image: Tensor) -> MACsProfile:
        """Return the multiply-adds of one image."""
        count = count_with_fvcore(network, image)
        second = count_with_torch(network, image)
        thop = count_with_fvcore(network, image, THOP_STYLE).macs if self.thop_style else None
        doubts = count.doubts(second, "torch")
        for doubt in doubts:
            log.warning("macs of %s: %s", type(network).__name__, doubt)
        apart = difference(count.macs, second)
        return MACsProfile(
            macs=count.macs,
            macs_torch=second,
            macs_difference=apart,
            macs_agree=apart <= AGREEMENT,
            macs_thop_style=thop,
            uncounted_ops=count.uncounted,
            uncounted_parameters=count.uncounted_parameters,
            macs_doubts=doubts,
            macs_by_module=count.by_module,
            image_shape=tuple(image.shape[1:]),
        )
