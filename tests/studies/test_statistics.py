"""Statistics against textbook numbers, hand-made sums, and SciPy's other ways to the same figure."""

import math

import numpy as np
import pytest
from scipy import stats

from kdlab.studies.statistics import PairedDifference, Summary, holm

# Student, The Probable Error of a Mean, 1908: hours of sleep gained by ten patients with two drugs
FIRST_DRUG = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SECOND_DRUG = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def by_seed(values):
    return dict(enumerate(values))


def test_a_summary_of_three_by_hand():
    # 1, 2, 6: mean 3, squared distances 4 + 1 + 9 = 14, sd sqrt(7); t(0.975, 2) = 4.302653 (tables)
    summary = Summary.of([1.0, 2.0, 6.0])
    assert summary.n == 3
    assert summary.mean == 3.0
    assert summary.sd == pytest.approx(math.sqrt(7))
    assert summary.half_width == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.97, 0.01, 7)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    summary = Summary.of(list(values))
    assert summary.half_width is not None
    assert summary.mean - summary.half_width == pytest.approx(low, rel=1e-12)
    assert summary.mean + summary.half_width == pytest.approx(high, rel=1e-12)


def test_the_interval_covers_the_mean_in_95_of_100_studies():
    draws = np.random.default_rng(1).normal(5.0, 2.0, (2000, 4))
    covered = 0
    for row in draws:
        summary = Summary.of(list(row))
        assert summary.half_width is not None
        covered += abs(summary.mean - 5.0) <= summary.half_width
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)  # three standard errors


def test_one_run_has_no_interval():
    assert Summary.of([0.9]) == Summary(n=1, mean=0.9, sd=None, half_width=None)


def test_students_sleep_data():
    # published: mean difference 1.58, t = 4.0621 with 9 degrees of freedom, p = 0.002833 (R: t.test(paired = TRUE))
    result = PairedDifference.of(by_seed(SECOND_DRUG), by_seed(FIRST_DRUG))
    assert result.seeds == tuple(range(10))
    assert result.difference is not None
    assert result.difference.mean == pytest.approx(1.58)
    assert result.difference.mean - result.difference.half_width == pytest.approx(0.7001142, abs=1e-6)
    assert result.p == pytest.approx(0.002833, abs=5e-7)
    assert result.effect_size == pytest.approx(4.0621 / math.sqrt(10), abs=1e-5)  # d_z = t / sqrt(n)


def test_the_paired_test_is_scipys():
    result = PairedDifference.of(by_seed(FIRST_DRUG), by_seed(SECOND_DRUG))
    assert result.p == pytest.approx(stats.ttest_rel(FIRST_DRUG, SECOND_DRUG).pvalue, rel=1e-12)


def test_only_common_seeds_are_compared():
    result = PairedDifference.of({0: 1.0, 1: 2.0, 2: 9.0}, {1: 1.0, 2: 7.0, 3: 100.0})
    assert result.seeds == (1, 2)
    assert result.difference is not None
    assert result.difference.mean == 1.5


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ({0: 1.0}, {1: 1.0}, "no common seed"),
        ({0: 1.0}, {0: 2.0}, "not tested: one seed"),
        ({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}, "identical"),
        ({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}, "not tested: no spread"),
    ],
)
def test_what_cannot_be_tested_is_said(first, second, verdict):
    result = PairedDifference.of(first, second)
    assert result.p is None
    assert result.verdict == verdict


def test_a_test_before_its_correction_has_no_verdict():
    result = PairedDifference.of(by_seed(SECOND_DRUG), by_seed(FIRST_DRUG))
    assert (result.p_holm, result.verdict) == (None, "not corrected yet")


def test_a_spread_below_the_rounding_of_float32_is_none():
    """One image of 360 more on every seed: equal differences, but not in the last digit of float32."""
    counts = {seed: 300 + 7 * seed for seed in range(5)}
    first = {seed: float(np.float32((count + 1) / 360)) for seed, count in counts.items()}
    second = {seed: float(np.float32(count / 360)) for seed, count in counts.items()}
    result = PairedDifference.of(first, second)
    assert result.difference is not None
    assert result.difference.sd  # not exactly 0
    assert (result.p, result.verdict) == (None, "not tested: no spread")


def test_one_image_of_10000_is_a_spread():
    result = PairedDifference.of({0: 0.9801, 1: 0.9802, 2: 0.9803}, {0: 0.97, 1: 0.97, 2: 0.97})
    assert result.p is not None


@pytest.mark.parametrize(
    ("p_holm", "verdict"), [(0.0499, "higher"), (0.05, "not distinguishable"), (1.0, "not distinguishable")]
)
def test_the_words_follow_the_corrected_p(p_holm, verdict):
    difference = Summary(n=5, mean=0.1, sd=0.1, half_width=0.12)
    assert PairedDifference((0, 1, 2, 3, 4), difference, 1.0, 0.001, p_holm).verdict == verdict


def test_lower_is_said_too():
    assert PairedDifference((0, 1), Summary(2, -0.1, 0.01, 0.1), -10.0, 0.01, 0.01).verdict == "lower"


def test_holm_by_hand():
    # sorted 0.005 0.01 0.03 0.04 times 4 3 2 1: 0.02, 0.03, 0.06, 0.04 -> 0.06 since it may not fall
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_is_between_no_correction_and_bonferroni():
    p_values = list(np.random.default_rng(2).uniform(0, 0.2, 12))
    for raw, corrected in zip(p_values, holm(p_values), strict=True):
        assert raw <= corrected <= min(1.0, 12 * raw)
    assert min(holm(p_values)) == pytest.approx(min(1.0, 12 * min(p_values)))
