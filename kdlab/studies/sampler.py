"""What a search tries next, by the tree-structured Parzen estimator (TPE) of Optuna, the only part of it that is used.

Nothing is kept: a round is a function of the seed and of the trials before it, so whoever asks again, after an
interruption or on another machine, is told the same.

Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011; Watanabe, Tree-Structured Parzen Estimator:
Understanding Its Algorithm Components and Their Roles for Better Empirical Performance, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdlab.extras import require
from kdlab.studies.search import Range, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Finished ones before results decide; the first round is random in any case. With Optuna's 10 a search of 12 in rounds
# of 4, each trial with all seeds, would be random to its end.
RANDOM_TRIALS = 4
DIGITS = 4  # of a suggested number, which stands in tables and on command lines; more where its range is narrow


class Trial(NamedTuple):
    """Settings that were tried.

    Attributes:
        values: config key -> value.
        score: what they reached; None where a run failed.
    """

    values: Mapping[str, Any]
    score: float | None


def suggest(search: Search, seed: int, tried: Sequence[Trial]) -> list[Mapping[str, Any]]:
    """The settings of the next round.

    Args:
        search: what may be tried.
        seed: of the study.
        tried: the trials of all rounds before, in order.

    Raises:
        UsageError: if Optuna is not installed.
    """
    require("optuna", "search", "a study with a search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # a new generator for each round: how many numbers the rounds before have drawn does not matter
    drawn_from = int(np.random.SeedSequence((seed, len(tried))).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, constant_liar=True, seed=drawn_from)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {key: _distribution(found) for key, found in search.ranges.items()}
    states = optuna.trial.TrialState
    for values, score in tried:
        state = states.FAIL if score is None else states.COMPLETE
        told = optuna.trial.create_trial(state=state, value=score, params=dict(values), distributions=distributions)
        study.add_trial(told)
    asked = [study.ask(distributions) for _ in range(min(search.rounds_of, search.trials - len(tried)))]
    return [{key: _readable(trial.params[key], found) for key, found in search.ranges.items()} for trial in asked]


def _distribution(found: Range | tuple[Any, ...]) -> BaseDistribution:
    from optuna import distributions

    if not isinstance(found, Range):
        made = distributions.CategoricalDistribution(found)
    elif found.whole:
        made = distributions.IntDistribution(found.low, found.high, log=found.log)
    else:
        made = distributions.FloatDistribution(found.low, found.high, log=found.log)
    return made


def _readable(value: Any, found: Range | tuple[Any, ...]) -> Any:  # noqa: ANN401
    """A suggested number with few digits, inside its range."""
    if not isinstance(found, Range) or found.whole:
        return value
    width = found.high - found.low
    places = DIGITS - math.ceil(math.log10(min(abs(value) or width, width)))
    return min(max(round(value, places), float(found.low)), float(found.high))
