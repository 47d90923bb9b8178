"""Paired answers against counts by hand and the binomial distribution written out."""

from math import comb

import numpy as np
import pytest

from kdlab.analysis import Paired
from kdlab.errors import UsageError


def logits_of(answers, k=3):
    return 5 * np.eye(k)[answers] - 1


def test_the_counts_are_those_made_by_hand():
    paired = Paired.from_logits(logits_of([0, 0, 0, 1, 1]), logits_of([0, 1, 2, 0, 1]), np.array([0, 0, 0, 0, 2]))
    assert (paired.n, paired.both_right, paired.both_wrong) == (5, 1, 1)
    assert (paired.only_first_right, paired.only_second_right) == (2, 1)
    assert paired.agreement == 2 / 5
    assert paired.accuracy_difference == pytest.approx(1 / 5)
    assert paired.mcnemar_p == pytest.approx(1)  # 2 of 3: nothing is more likely
    assert paired.undefined == {}


def test_the_p_value_is_twice_the_tail_of_a_fair_coin():
    labels = np.zeros(20, dtype=int)
    first, second = logits_of([0] * 9 + [1] * 11), logits_of([1] * 9 + [0] + [1] * 10)
    paired = Paired.from_logits(first, second, labels)
    assert (paired.only_first_right, paired.only_second_right) == (9, 1)
    assert paired.mcnemar_p == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)
    assert Paired.from_logits(second, first, labels).mcnemar_p == pytest.approx(paired.mcnemar_p)
    assert Paired.from_logits(second, first, labels).accuracy_difference == -paired.accuracy_difference


def test_equal_students_have_no_p_value_and_empty_splits_have_nothing(nothing):
    equal = Paired.from_logits(logits_of([0, 1]), logits_of([0, 1]), np.array([0, 0]))
    assert (equal.agreement, equal.accuracy_difference, equal.mcnemar_p) == (1, 0, None)
    assert "exactly one student" in equal.undefined["mcnemar_p"]
    logits, labels = nothing
    none = Paired.from_logits(logits, logits, labels)
    assert none.undefined == dict.fromkeys(
        ("agreement", "accuracy_difference", "mcnemar_p"), "the split has no samples"
    )
    assert none.agreement is None


def test_students_of_different_splits_are_an_error():
    with pytest.raises(UsageError, match=r"first logits has the shape \[2, 3\] but second logits has \[1, 3\]"):
        Paired.from_logits(logits_of([0, 1]), logits_of([0]), np.array([0, 0]))
