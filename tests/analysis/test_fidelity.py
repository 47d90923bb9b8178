"""Fidelity against counts by hand, SciPy and torch row by row, and laws."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats

from kdlab.analysis import Fidelity
from kdlab.analysis.fidelity import correlation, divergence, rank_correlation
from kdlab.errors import UsageError

TEACHER = np.array([[5.0, 1, 0], [5, 1, 0], [0, 5, 1], [5, 0, 1], [5, 0, 1]])  # answers 0 0 1 0 0
STUDENT = np.array([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [1, 3, 2], [1, 2, 3]])  # answers 0 0 0 1 2
LABELS = np.array([0, 1, 1, 2, 2])  # teacher right: 0, 2; student right: 0, 4; both wrong: 1 (alike), 3 (apart)


def test_the_counts_are_those_made_by_hand():
    fidelity = Fidelity.from_logits(STUDENT, TEACHER, LABELS)
    assert (fidelity.n, fidelity.num_classes) == (5, 3)
    assert (fidelity.student_accuracy, fidelity.teacher_accuracy) == (2 / 5, 2 / 5)
    assert fidelity.agreement == 2 / 5
    assert (fidelity.teacher_wrong, fidelity.both_wrong, fidelity.same_wrong) == (3, 2, 1)
    assert fidelity.same_wrong_rate == 1 / 2
    assert fidelity.undefined == {}


def test_divergence_of_one_half_and_one_quarter_is_the_value_by_hand_and_not_the_reverse():
    student, teacher = np.log([[0.25, 0.75]]), np.log([[0.5, 0.5]])
    assert divergence(student, teacher)[0] == pytest.approx(0.5 * math.log(4 / 3), rel=1e-12)
    reverse = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert divergence(teacher, student)[0] == pytest.approx(reverse, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_divergence_is_that_of_scipy_row_by_row(made, temperature):
    p, q = special.softmax(made.teacher / temperature, axis=1), special.softmax(made.student / temperature, axis=1)
    expected = [stats.entropy(one, other) for one, other in zip(p, q, strict=True)]
    np.testing.assert_allclose(divergence(made.student, made.teacher, temperature), expected, rtol=1e-9, atol=1e-13)


def test_mean_divergences_are_those_of_torch_without_a_squared_temperature(made):
    fidelity = Fidelity.from_logits(made.student, made.teacher, made.labels, temperature=3.0)
    for value, t in ((fidelity.kl, 1.0), (fidelity.kl_softened, fidelity.temperature)):
        student, teacher = (torch.tensor(z / t).log_softmax(1) for z in (made.student, made.teacher))
        assert value == pytest.approx(F.kl_div(student, teacher, reduction="batchmean", log_target=True).item())
    assert fidelity.temperature == 3.0


def test_correlations_are_those_of_scipy_row_by_row_ties_included(made):
    student, teacher = made.student.round(), made.teacher.round()  # whole logits of 7 classes: most rows have ties
    fidelity = Fidelity.from_logits(student, teacher, made.labels)
    rank = [stats.spearmanr(one, other).statistic for one, other in zip(student, teacher, strict=True)]
    linear = [stats.pearsonr(one, other).statistic for one, other in zip(student, teacher, strict=True)]
    np.testing.assert_allclose(rank_correlation(student, teacher), rank, atol=1e-12)
    np.testing.assert_allclose(correlation(student, teacher), linear, atol=1e-12)
    assert fidelity.spearman == pytest.approx(np.mean(rank))
    assert fidelity.pearson == pytest.approx(np.mean(linear))
    assert fidelity.correlated == 200


def test_a_student_with_the_teachers_logits_is_perfect(made):
    fidelity = Fidelity.from_logits(made.teacher, made.teacher.copy(), made.labels)
    assert (fidelity.agreement, fidelity.kl, fidelity.kl_softened, fidelity.same_wrong_rate) == (1, 0, 0, 1)
    assert fidelity.spearman == pytest.approx(1, abs=1e-12)
    assert fidelity.pearson == pytest.approx(1, abs=1e-12)
    assert fidelity.student_accuracy == fidelity.teacher_accuracy < 1


def test_shifts_and_scales_of_a_students_rows_change_the_divergence_but_not_answers_and_correlations(made):
    before = Fidelity.from_logits(made.student, made.teacher, made.labels)
    shifted = Fidelity.from_logits(made.student + 100, made.teacher, made.labels)
    scaled = Fidelity.from_logits(0.1 * made.student, made.teacher, made.labels)
    assert shifted.kl == pytest.approx(before.kl, rel=1e-9)
    assert scaled.kl != pytest.approx(before.kl, rel=0.05)
    for other in (shifted, scaled):
        assert (other.agreement, other.same_wrong) == (before.agreement, before.same_wrong)
        assert other.spearman == pytest.approx(before.spearman, abs=1e-12)
        assert other.pearson == pytest.approx(before.pearson, abs=1e-9)


def test_the_lower_class_answers_where_two_share_the_highest_logit():
    fidelity = Fidelity.from_logits(
        np.array([[1.0, 2, 2], [0, 0, 0]]), np.array([[0.0, 2, 0], [0, 0, 2]]), np.array([1, 0])
    )
    assert (fidelity.student_accuracy, fidelity.agreement) == (1, 1 / 2)


def test_rows_of_equal_logits_are_left_out_of_the_correlations_and_counted():
    student, teacher = np.array([[0.1, 0.1, 0.1], [1.0, 2, 3]]), np.array([[1.0, 2, 3], [3.0, 2, 1]])
    fidelity = Fidelity.from_logits(student, teacher, np.array([0, 0]))
    assert (fidelity.correlated, fidelity.spearman) == (1, pytest.approx(-1))
    alone = Fidelity.from_logits(student[:1], teacher[:1], np.array([0]))
    assert (alone.correlated, alone.spearman, alone.pearson) == (0, None, None)
    assert "equal logits" in alone.undefined["spearman"]
    assert set(alone.undefined) == {"spearman", "pearson", "same_wrong_rate"}


def test_a_split_without_common_errors_has_no_same_wrong_rate_and_says_why():
    fidelity = Fidelity.from_logits(STUDENT[:1], TEACHER[:1], LABELS[:1])
    assert fidelity.same_wrong_rate is None
    assert fidelity.undefined == {"same_wrong_rate": "there is no sample that both answer wrongly"}


def test_a_split_without_samples_has_counts_of_zero_and_reasons(nothing):
    logits, labels = nothing
    fidelity = Fidelity.from_logits(logits, logits, labels)
    assert (fidelity.n, fidelity.num_classes, fidelity.both_wrong, fidelity.correlated) == (0, 4, 0, 0)
    undefined = {name for name, value in asdict(fidelity).items() if value is None}
    assert undefined == set(fidelity.undefined)
    assert len(undefined) == 8
    assert set(fidelity.undefined.values()) == {"the split has no samples"}


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits_give_finite_numbers(size):
    student, teacher = size * np.array([[1.0, -1, 0], [0, 1, 1]]), size * np.array([[-1.0, 1, 0], [1, 0, 0]])
    json.dumps(asdict(Fidelity.from_logits(student, teacher, np.array([0, 1]))), allow_nan=False)


def test_a_wrong_input_is_named():
    with pytest.raises(UsageError, match=r"student logits has the shape \[5, 3\] but teacher logits has \[4, 3\]"):
        Fidelity.from_logits(STUDENT, TEACHER[:4], LABELS)
    with pytest.raises(UsageError, match="labels holds 5"):
        Fidelity.from_logits(STUDENT, TEACHER, LABELS + 5)
    with pytest.raises(UsageError, match="temperature is 0,"):
        Fidelity.from_logits(STUDENT, TEACHER, LABELS, temperature=0)
    with pytest.raises(UsageError, match="teacher logits looks like probabilities"):
        Fidelity.from_logits(STUDENT, special.softmax(TEACHER, axis=1), LABELS)


def test_divergence_of_equal_distributions_is_never_negative(made):
    shifts = np.linspace(-50, 50, 200)[:, None]  # change the logits' last digits, not the distributions
    kl = divergence(made.teacher + shifts, made.teacher)
    assert kl.min() == 0
    assert kl.max() < 1e-12
