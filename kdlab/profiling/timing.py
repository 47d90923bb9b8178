"""Time one call over and over: warm up until stable, then sample for a given time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Clock = Callable[[], float]  # seconds

STABLE_WITHIN = 0.05  # two medians in a row may differ by so much, relative
STABLE_CALLS = 5  # of each median, at least
STABLE_SECONDS = 0.05  # of each median, at least: short hiccups must not pass as drift
WARMUP_SHARE = 0.5  # of the time budget, at most
ROUNDS = 5  # of each case, in turn, so that a busy moment of the machine does not hit one case alone
FEWEST_SAMPLES = 3
SAMPLES_FOR_P90, SAMPLES_FOR_P99 = 10, 100  # fewer do not reach so far into the tail


@dataclass
class Case:
    """Something to time.

    Attributes:
        call: does the work once and returns when it is done.
        warmup_n: calls before the first sample.
        stable: whether the warm-up ended because the time had settled, rather than because its own had run out.
        rounds: seconds of each call, round by round.
    """

    call: Callable[[], object]
    warmup_n: int = 0
    stable: bool = False
    rounds: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Distribution:
    """How long a call takes, in milliseconds.

    Attributes:
        p50: median.
        p90: 90th percentile; None for fewer than `SAMPLES_FOR_P90` calls.
        p99: 99th percentile; None for fewer than `SAMPLES_FOR_P99` calls.
        min: shortest call.
        mean: of all calls.
        iqr: interquartile range, 75th minus 25th percentile.
        spread: largest minus smallest median of the rounds, plus the interquartile range: two measurements of the
            same thing on the same machine are expected to differ by less.
        n: calls.
    """

    p50: float
    p90: float | None
    p99: float | None
    min: float
    mean: float
    iqr: float
    spread: float
    n: int


def time_cases(cases: Sequence[Case], seconds: float, clock: Clock = time.perf_counter) -> None:
    """Warm up every case and then sample all of them in turn, about `seconds` each.

    A case whose calls are so long that the time is up early keeps `FEWEST_SAMPLES` samples at least.
    """
    for case in cases:
        case.warmup_n, case.stable = warm_up(case.call, WARMUP_SHARE * seconds, clock)
    for _ in range(ROUNDS):
        for case in cases:
            samples = [sample for earlier in case.rounds for sample in earlier]
            if sum(samples) < seconds or len(samples) < FEWEST_SAMPLES:
                case.rounds.append(_sample(case.call, seconds / ROUNDS, clock))


def warm_up(call: Callable[[], object], seconds: float, clock: Clock = time.perf_counter) -> tuple[int, bool]:
    """Call until two medians in a row agree, or `seconds` are over; return the number of calls and which it was."""
    begin, calls, last = clock(), 0, None
    while True:
        window: list[float] = []
        while len(window) < STABLE_CALLS or sum(window) < STABLE_SECONDS:
            window += _sample(call, 0.0, clock)
            calls += 1
            if clock() - begin >= seconds:
                return calls, False
        median = statistics.median(window)
        if last is not None and abs(median - last) <= STABLE_WITHIN * last:
            return calls, True
        last = median


def _sample(call: Callable[[], object], seconds: float, clock: Clock) -> list[float]:
    """Seconds of each call, for `seconds` but once at least."""
    samples: list[float] = []
    begin = stop = clock()
    while not samples or stop - begin < seconds:
        start = clock()
        call()
        stop = clock()
        samples.append(stop - start)
    return samples


def distribution(rounds: Sequence[Sequence[float]]) -> Distribution:
    """Return the distribution in milliseconds of samples in seconds."""
    ms = 1e3 * np.concatenate([np.asarray(samples, dtype=np.float64) for samples in rounds])
    q25, p50, q75, p90, p99 = np.percentile(ms, [25, 50, 75, 90, 99]).tolist()
    medians = [1e3 * statistics.median(samples) for samples in rounds]
    return Distribution(
        p50=p50,
        p90=p90 if len(ms) >= SAMPLES_FOR_P90 else None,
        p99=p99 if len(ms) >= SAMPLES_FOR_P99 else None,
        min=float(ms.min()),
        mean=float(ms.mean()),
        iqr=q75 - q25,
        spread=max(medians) - min(medians) + (q75 - q25),
        n=len(ms),
    )
