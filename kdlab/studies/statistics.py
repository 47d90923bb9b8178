"""What several seeds say together: intervals, paired tests on equal seeds, and a correction for many of them.

Shapes: n seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
ROUNDING = 1e-6  # of float32, in which results are computed: a spread below it is none
FEW = 3  # below this many seeds an interval says next to nothing


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one metric over n runs, in the unit of the metric.

    Attributes:
        n: number of runs.
        mean: mean of their values.
        sd: sample standard deviation of their values; None for one run.
        half_width: half of the 95% Student-t interval of the mean, as in mean ± half_width; None for one run.
    """

    n: int
    mean: float
    sd: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise at least one value."""
        n, mean = len(values), statistics.fmean(values)
        if n < 2:
            return cls(n, mean, None, None)
        sd = statistics.stdev(values)
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
        return cls(n, mean, sd, half)


@dataclass(frozen=True)
class PairedDifference:
    """Two cells on their common seeds, the first minus the second.

    Source: Student's paired t-test; effect size d_z of Cohen, Statistical Power Analysis, 1988, section 2.3.5.

    Attributes:
        seeds: that both cells have.
        difference: mean, spread and interval of the differences; None without a common seed.
        effect_size: d_z, mean over standard deviation of the differences; None where they have no spread.
        p: two-sided p-value of the paired t-test; None where it is not defined.
        p_holm: p corrected by `holm` for all comparisons of the study with the same metric.
    """

    seeds: tuple[int, ...]
    difference: Summary | None
    effect_size: float | None
    p: float | None
    p_holm: float | None = None

    @classmethod
    def of(cls, first: Mapping[int, float], second: Mapping[int, float]) -> PairedDifference:
        """Compare two cells, each as seed -> value."""
        seeds = tuple(sorted(first.keys() & second.keys()))
        differences = [first[seed] - second[seed] for seed in seeds]
        if not differences:
            return cls((), None, None, None)
        difference = Summary.of(differences)
        largest = max(abs(cell[seed]) for cell in (first, second) for seed in seeds)
        if difference.sd is None or difference.sd <= ROUNDING * largest:
            return cls(seeds, difference, None, None)
        p = float(stats.ttest_1samp(differences, 0.0).pvalue)
        return cls(seeds, difference, difference.mean / difference.sd, p)

    @property
    def verdict(self) -> str:
        """Whether the difference is significant, in words."""
        if self.difference is None:
            return "no common seed"
        if self.difference.sd is None:
            return "not tested: one seed"
        if self.p is None:
            return "identical" if self.difference.mean == 0 else "not tested: no spread"
        if self.p_holm is None:
            return "not corrected yet"
        if self.p_holm >= SIGNIFICANCE:
            return "not distinguishable"
        return "higher" if self.difference.mean > 0 else "lower"


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that the chance of one false discovery among all is at most that of one test.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979; computed by statsmodels.
    """
    from statsmodels.stats.multitest import multipletests  # takes seconds

    corrected: list[float] = multipletests(p_values, method="holm")[1].tolist() if p_values else []
    return corrected
