"""Standardized logits against SciPy, and the summary against torch and counts by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from kdlab.analysis import SampleDivergences, StandardizationSummary, standardize
from kdlab.errors import UsageError
from kdlab.losses import StandardizedSoftTargets
from kdlab.losses.standardized import standardize as standardize_in_training


@pytest.mark.parametrize("ddof", [0, 1])
def test_standardize_without_eps_is_scipys_z_score(made, ddof):
    np.testing.assert_allclose(
        standardize(made.student, ddof, eps=0.0), stats.zscore(made.student, axis=1, ddof=ddof), rtol=1e-12
    )


def test_eps_is_added_to_the_deviation_after_the_root():
    row = np.array([[1.0, 3.0]])  # mean 2, sample deviation sqrt 2
    np.testing.assert_allclose(standardize(row, eps=0.5), [[-1 / (2**0.5 + 0.5), 1 / (2**0.5 + 0.5)]])
    assert standardize(row)[0, 1] == pytest.approx(1 / (2**0.5 + 1e-7), rel=1e-15)  # Sun et al.: ddof 1, eps 1e-7


@pytest.mark.parametrize("eps", [0.0, 1e-7])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 / 3])
def test_a_constant_row_gives_exact_zeros(value, eps):
    rows = np.array([[value] * 7, [1.0, 2, 3, 4, 5, 6, 7]])
    assert (standardize(rows, eps=eps)[0] == 0).all()
    assert (standardize(rows, eps=eps)[1] != 0).any()


@pytest.mark.parametrize("eps", [1e-7, 0.5])
@pytest.mark.parametrize("ddof", [0, 1])
def test_analysis_and_training_standardize_alike(made, ddof, eps):
    logits = made.student.copy()
    logits[3] = 1e5 / 3  # a constant row
    trained = standardize_in_training(torch.from_numpy(logits), ddof, eps).numpy()
    np.testing.assert_allclose(standardize(logits, ddof, eps), trained, rtol=1e-12, atol=1e-14)
    samples = SampleDivergences.from_logits(logits, made.teacher, made.labels, temperature=2.0, ddof=ddof)
    loss = StandardizedSoftTargets(temperature=2.0, ddof=ddof)
    trained = loss(torch.from_numpy(logits), torch.from_numpy(made.teacher))
    assert samples.kl_standardized.mean() == pytest.approx(float(trained) / 2.0**2, rel=1e-10)


def test_another_ddof_is_an_error():
    with pytest.raises(UsageError, match=r"ddof is 2; give 1 .* or 0"):
        standardize(np.ones((1, 3)), ddof=2)


def test_divergences_by_sample_are_those_of_torch(made):
    samples = SampleDivergences.from_logits(made.student, made.teacher, made.labels, temperature=2.0, ddof=0)

    def kl(student, teacher):
        student, teacher = (torch.tensor(z / 2.0).log_softmax(1) for z in (student, teacher))
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1).numpy()

    np.testing.assert_allclose(samples.kl, kl(made.student, made.teacher), atol=1e-12)
    scaled = [(z - z.mean(1, keepdims=True)) / (z.std(1, keepdims=True) + 1e-7) for z in (made.student, made.teacher)]
    np.testing.assert_allclose(samples.kl_standardized, kl(*scaled), atol=1e-12)
    np.testing.assert_array_equal(samples.correct, made.student.argmax(1) == made.labels)


def test_standardized_divergence_does_not_see_scale_and_shift_of_a_row(made):
    scales = np.linspace(0.1, 10, 200)[:, None]
    plain, moved = (
        SampleDivergences.from_logits(z, made.teacher, made.labels) for z in (made.student, scales * made.student - 40)
    )
    np.testing.assert_allclose(moved.kl_standardized, plain.kl_standardized, atol=1e-6)  # eps against a small scale
    assert np.abs(moved.kl - plain.kl).max() > 0.1


def test_the_summary_averages_over_the_split(made):
    samples = SampleDivergences.from_logits(made.student, made.teacher, made.labels)
    summary = StandardizationSummary.of("distilled", samples)
    assert (summary.student, summary.n, summary.temperature, summary.ddof) == ("distilled", 200, 1.0, 1)
    assert summary.kl == pytest.approx(sum(samples.kl) / 200)
    assert summary.kl_standardized == pytest.approx(sum(samples.kl_standardized) / 200)
    expected = [stats.spearmanr(*rows).statistic for rows in zip(made.student, made.teacher, strict=True)]
    assert summary.spearman == pytest.approx(np.mean(expected))
    assert summary.correct == (made.student.argmax(1) == made.labels).sum()
    assert summary.accuracy == summary.correct / 200
    assert summary.undefined == {}


def test_the_summary_tells_right_answers_from_wrong_ones(made):
    samples = SampleDivergences.from_logits(made.student, made.teacher, made.labels)
    summary = StandardizationSummary.of("distilled", samples)
    right = [i for i in range(200) if made.student[i].argmax() == made.labels[i]]
    for part, chosen in ((summary.right, right), (summary.wrong, sorted(set(range(200)) - set(right)))):
        assert part.n == part.correlated == len(chosen) > 0
        assert part.kl == pytest.approx(sum(samples.kl[i] for i in chosen) / len(chosen))
        assert part.kl_standardized == pytest.approx(sum(samples.kl_standardized[i] for i in chosen) / len(chosen))
        expected = [stats.spearmanr(made.student[i], made.teacher[i]).statistic for i in chosen]
        assert part.spearman == pytest.approx(np.mean(expected))
        assert part.undefined == {}
    perfect = StandardizationSummary.of("p", SampleDivergences.from_logits(3 * np.eye(3), 2 * np.eye(3), np.arange(3)))
    assert perfect.wrong.kl is None
    assert set(perfect.wrong.undefined.values()) == {"every sample is answered correctly"}


def test_a_student_that_says_nothing_has_no_correlation():
    samples = SampleDivergences.from_logits(np.zeros((2, 3)), np.array([[1.0, 2, 3], [3.0, 1, 2]]), np.array([0, 2]))
    summary = StandardizationSummary.of("mute", samples)
    assert (summary.correlated, summary.spearman, summary.correct) == (0, None, 1)
    assert "equal logits" in summary.undefined["spearman"]
    assert summary.kl > 0


def test_a_split_without_samples_has_reasons(nothing):
    logits, labels = nothing
    summary = StandardizationSummary.of("none", SampleDivergences.from_logits(logits, logits, labels))
    assert (summary.n, summary.correct) == (0, 0)
    assert summary.undefined == dict.fromkeys(
        ("kl", "kl_standardized", "spearman", "accuracy"), "the split has no samples"
    )


def test_wrong_inputs_are_named(made):
    with pytest.raises(UsageError, match=r"student logits has the shape \[200, 7\] but teacher logits has \[200, 6\]"):
        SampleDivergences.from_logits(made.student, made.teacher[:, :6], made.labels)
    with pytest.raises(UsageError, match="labels has 199 entries"):
        SampleDivergences.from_logits(made.student, made.teacher, made.labels[1:])
    with pytest.raises(UsageError, match="temperature is -1,"):
        SampleDivergences.from_logits(made.student, made.teacher, made.labels, temperature=-1)
