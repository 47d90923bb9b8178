"""Denoising against counts by hand."""

import numpy as np
import pytest

from kdlab.analysis import Denoising
from kdlab.errors import UsageError

TRUE = np.array([4, 4, 4, 4, 1, 2, 2])
TRAINED = np.array([3, 3, 3, 3, 1, 2, 2])  # "label 4 becomes 3"
ANSWERS = [4, 4, 3, 0, 1, 2, 3]  # corrected, corrected, memorised, other; right, right, wrong


def logits_of(answers, k=5):
    return 5 * np.eye(k)[answers] - 1


def test_the_counts_are_those_made_by_hand():
    denoising = Denoising.from_logits(logits_of(ANSWERS), TRAINED, TRUE)
    assert (denoising.n, denoising.n_noisy, denoising.n_clean) == (7, 4, 3)
    assert (denoising.corrected, denoising.memorised, denoising.other) == (2, 1, 1)
    assert (denoising.corrected_rate, denoising.memorised_rate) == (1 / 2, 1 / 4)
    assert denoising.clean_accuracy == 2 / 3
    assert denoising.undefined == {}


def test_training_labels_and_true_labels_are_not_interchangeable():
    swapped = Denoising.from_logits(logits_of(ANSWERS), TRUE, TRAINED)
    assert (swapped.corrected, swapped.memorised) == (1, 2)


def test_clean_labels_have_no_rates_and_say_why():
    denoising = Denoising.from_logits(logits_of(ANSWERS), TRUE, TRUE)
    assert (denoising.n_noisy, denoising.corrected_rate, denoising.memorised_rate) == (0, None, None)
    assert denoising.clean_accuracy == 4 / 7
    assert set(denoising.undefined) == {"corrected_rate", "memorised_rate"}
    assert "no training label is noisy" in denoising.undefined["corrected_rate"]


def test_a_split_of_noise_alone_has_no_clean_accuracy():
    denoising = Denoising.from_logits(logits_of(ANSWERS[:4]), TRAINED[:4], TRUE[:4])
    assert (denoising.n_clean, denoising.clean_accuracy) == (0, None)
    assert denoising.undefined == {"clean_accuracy": "every training label is noisy"}


def test_a_split_without_samples_has_counts_of_zero_and_reasons(nothing):
    logits, labels = nothing
    denoising = Denoising.from_logits(logits, labels, labels)
    assert (denoising.n, denoising.n_noisy, denoising.n_clean) == (0, 0, 0)
    assert set(denoising.undefined) == {"corrected_rate", "memorised_rate", "clean_accuracy"}
    assert denoising.undefined["clean_accuracy"] == "the split has no samples"


def test_labels_that_do_not_fit_are_named():
    with pytest.raises(UsageError, match="training labels has 6 entries"):
        Denoising.from_logits(logits_of(ANSWERS), TRAINED[:6], TRUE)
    with pytest.raises(UsageError, match="true labels holds 14"):
        Denoising.from_logits(logits_of(ANSWERS), TRAINED, TRUE + 10)
