"""The stopwatch, with a clock that only moves when it is told to."""

import math
import random
from time import perf_counter

import pytest

from kdlab.profiling.timing import Case, distribution, time_cases, warm_up


class FakeTime:
    """A call that takes the next of given durations, and the clock that sees it."""

    def __init__(self, durations):
        self.now = 100.0
        self.calls = 0
        self._durations = iter(durations)

    def clock(self):
        return self.now

    def call(self):
        self.now += next(self._durations)
        self.calls += 1


def forever(duration):
    while True:
        yield duration


def test_the_distribution_of_one_to_a_hundred_milliseconds_is_that_by_hand():
    # linear interpolation between sorted samples: quantile q of 1 ... 100 is 1 + 99 q
    ms = distribution([[i / 1e3 for i in range(1, 51)], [i / 1e3 for i in range(51, 101)]])
    assert (ms.p50, ms.p90, ms.p99) == pytest.approx((50.5, 90.1, 99.01))
    assert (ms.min, ms.mean, ms.n) == (pytest.approx(1), pytest.approx(50.5), 100)
    assert ms.iqr == pytest.approx(75.25 - 25.75)
    assert ms.spread == pytest.approx((75.5 - 25.5) + 49.5)  # medians of the two rounds, plus the range


@pytest.mark.parametrize(("n", "p90", "p99"), [(3, False, False), (9, False, False), (10, True, False), (99, True, False), (100, True, True)])  # fmt: skip
def test_a_percentile_that_too_few_calls_support_is_none(n, p90, p99):
    ms = distribution([[0.001] * n])
    assert (ms.p90 is not None, ms.p99 is not None) == (p90, p99)


def test_percentiles_of_a_simulated_network_are_within_one_percent_of_the_truth():
    # log-normal latencies around 2 ms, as a real network's: the quantiles are known in closed form
    dice, sigma = random.Random(1), 0.1
    time = FakeTime(0.002 * math.exp(sigma * dice.gauss(0, 1)) for _ in range(10**6))
    case = Case(time.call)
    time_cases([case], seconds=100.0, clock=time.clock)
    ms = distribution(case.rounds)
    assert ms.n > 40_000
    assert ms.p50 == pytest.approx(2.0, rel=0.01)
    assert ms.p90 == pytest.approx(2.0 * math.exp(sigma * 1.2816), rel=0.01)
    assert ms.p99 == pytest.approx(2.0 * math.exp(sigma * 2.3263), rel=0.01)


def test_warm_up_waits_until_the_calls_have_settled():
    # 30 calls that get faster, then a steady 10 ms
    time = FakeTime([0.1 / (1 + i / 3) for i in range(30)] + [0.010] * 1000)
    calls, stable = warm_up(time.call, seconds=60.0, clock=time.clock)
    assert stable
    assert 30 <= calls <= 60
    assert calls == time.calls


def test_warm_up_of_calls_that_never_settle_ends_with_its_time():
    time = FakeTime(0.001 * 2**i for i in range(100))
    calls, stable = warm_up(time.call, seconds=1.0, clock=time.clock)
    assert not stable
    assert calls == 10  # 1 + 2 + ... + 512 ms is the first sum above one second


def test_samples_do_not_contain_the_warm_up():
    time = FakeTime([1.0] + [0.01] * 10_000)
    case = Case(time.call)
    time_cases([case], seconds=4.0, clock=time.clock)
    assert max(max(samples) for samples in case.rounds) == pytest.approx(0.01)
    assert case.warmup_n + sum(map(len, case.rounds)) == time.calls


def test_the_budget_is_time_and_not_a_number_of_calls():
    for duration in (0.0001, 0.01, 0.3):
        time = FakeTime(forever(duration))
        time_cases([Case(time.call)], seconds=1.0, clock=time.clock)
        assert 1.0 <= time.now - 100.0 < 1.5 + 5 * duration + 1e-6  # one second, half of it again, ends of rounds


def test_a_very_slow_call_is_timed_three_times():
    time = FakeTime(forever(30.0))
    case = Case(time.call)
    time_cases([case], seconds=1.0, clock=time.clock)
    assert [len(samples) for samples in case.rounds] == [1, 1, 1]
    assert case.warmup_n == 1
    assert not case.stable


def test_a_busy_moment_of_the_machine_hits_all_cases():
    class Machine(FakeTime):
        def call(self):
            self.now += 0.010 if self.now - 100 < 2.5 else 0.020  # from then on everything takes twice as long

    time = Machine([])
    first, second = Case(time.call), Case(time.call)
    time_cases([first, second], seconds=2.0, clock=time.clock)
    a, b = distribution(first.rounds), distribution(second.rounds)
    assert a.mean == pytest.approx(b.mean, rel=0.2)
    assert a.spread >= 9.9  # and the printed spread says that something happened


def test_two_measurements_of_a_noisy_machine_differ_by_less_than_the_spread():
    dice = random.Random(3)
    time = FakeTime(0.002 * math.exp(0.1 * dice.gauss(0, 1)) for _ in range(10**6))
    results = []
    for _ in range(20):
        case = Case(time.call)
        time_cases([case], seconds=1.0, clock=time.clock)
        results.append(distribution(case.rounds))
    medians = [ms.p50 for ms in results]
    assert max(medians) - min(medians) < min(ms.spread for ms in results)


def test_a_call_of_known_length_is_measured_as_long_by_the_real_clock():
    def two_milliseconds():
        stop = perf_counter() + 0.002
        while perf_counter() < stop:
            pass

    case = Case(two_milliseconds)
    time_cases([case], seconds=0.2)
    # the fastest of a hundred calls is disturbed by nothing, even on a busy machine (2.002 ms in the worst of 75 tries)
    assert distribution(case.rounds).min == pytest.approx(2.0, rel=0.03)
