"""Calibration against numbers by hand, scikit-learn, torchmetrics and a scan over temperatures."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from kdlab.analysis import Calibration
from kdlab.errors import UsageError
from kdlab.metrics import ClassificationMetrics

# two classes, so that confidence and answer can be read off: p = 0.9, 0.9, 0.6, 0.5; the second answer is wrong
P = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
HAND = np.log(P)
HAND_LABELS = np.array([0, 1, 1, 0])


def test_the_numbers_are_those_by_hand():
    calibration = Calibration.from_logits(HAND, HAND_LABELS)
    assert calibration.n == 4
    assert calibration.accuracy == 3 / 4
    assert calibration.confidence == pytest.approx((0.9 + 0.9 + 0.6 + 0.5) / 4)
    assert calibration.nll == pytest.approx(-math.log(0.9 * 0.1 * 0.6 * 0.5) / 4)
    assert calibration.brier == pytest.approx((2 * 0.1**2 + 2 * 0.9**2 + 2 * 0.4**2 + 2 * 0.5**2) / 4)
    # |0.5 - 0.9| of two samples, |1 - 0.6| and |1 - 0.5| of one each
    assert calibration.ece == pytest.approx((2 * 0.4 + 0.4 + 0.5) / 4)


def test_the_bins_are_those_by_hand():
    # confidences inside the bins [7/15, 8/15), [9/15, 10/15) and [13/15, 14/15)
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.49, 0.51]])
    bins = Calibration.from_logits(logits, HAND_LABELS).bins
    assert bins.edges == pytest.approx([i / 15 for i in range(16)])
    assert {b: count for b, count in enumerate(bins.count) if count} == {7: 1, 9: 1, 13: 2}
    assert (bins.accuracy[7], bins.accuracy[9], bins.accuracy[13]) == (0.0, 1.0, 0.5)
    assert bins.confidence[7] == pytest.approx(0.51)
    assert bins.confidence[13] == pytest.approx(0.9)
    assert bins.confidence[0] is None
    assert bins.accuracy[0] is None


def test_a_confidence_of_exactly_one_and_one_on_an_edge_fall_into_the_bin_above():
    calibration = Calibration.from_logits(np.array([[1000.0, 0, 0], [0, 0, 0]]), np.array([0, 0]))
    assert {b: count for b, count in enumerate(calibration.bins.count) if count} == {5: 1, 14: 1}  # 1/3 = 5/15
    assert calibration.undefined["bins"] == "13 of 15 bins hold no samples"


def test_nll_and_ece_are_those_of_scikit_learn_and_torchmetrics(made):
    calibration = Calibration.from_logits(made.student, made.labels)
    p = special.softmax(made.student, axis=1)
    assert calibration.nll == pytest.approx(log_loss(made.labels, p, labels=range(7)), rel=1e-9)
    one_hot = np.eye(7)[made.labels]
    assert calibration.brier == pytest.approx(np.mean(np.sum((p - one_hot) ** 2, axis=1)), rel=1e-12)
    expected = multiclass_calibration_error(torch.tensor(p), torch.tensor(made.labels), num_classes=7, n_bins=15)
    assert calibration.ece == pytest.approx(expected.item(), abs=1e-6)  # torchmetrics adds up in float32
    assert 0 < calibration.ece < 1


def test_the_numbers_are_those_logged_by_a_test_run(made):
    metrics = ClassificationMetrics(7)
    metrics.update(torch.tensor(made.student), torch.tensor(made.labels))
    calibration = Calibration.from_logits(made.student, made.labels)
    logged = metrics.compute()
    assert calibration.ece == pytest.approx(logged["ece"].item(), abs=1e-6)
    assert calibration.nll == pytest.approx(logged["nll"].item(), rel=1e-9)
    assert calibration.accuracy == pytest.approx(logged["accuracy"].item(), abs=1e-6)


def test_bins_add_up_to_the_whole_split(made):
    calibration = Calibration.from_logits(made.student, made.labels)
    bins = calibration.bins
    assert sum(bins.count) == calibration.n == 200
    right = sum(count * accuracy for count, accuracy in zip(bins.count, bins.accuracy, strict=True) if count)
    assert right / 200 == pytest.approx(calibration.accuracy)
    for i, (count, confidence) in enumerate(zip(bins.count, bins.confidence, strict=True)):
        assert confidence is None if count == 0 else bins.edges[i] <= confidence <= bins.edges[i + 1]


@pytest.mark.parametrize("scale", [1.0, 0.01, 1e6])
def test_the_optimal_temperature_is_the_best_of_a_scan(made, scale):
    calibration = Calibration.from_logits(scale * made.student, made.labels)
    best = calibration.optimal_temperature

    def nll(temperature):
        log_p = special.log_softmax(scale * made.student / temperature, axis=1)
        return -log_p[np.arange(200), made.labels].mean()

    assert all(nll(best) < nll(best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
    assert best / scale == pytest.approx(
        Calibration.from_logits(made.student, made.labels).optimal_temperature, rel=1e-6
    )


def test_answers_that_are_right_as_often_as_they_say_have_temperature_one_and_no_error():
    logits = np.log([[0.8, 0.2]] * 5)
    calibration = Calibration.from_logits(logits, np.array([0, 0, 0, 0, 1]))
    assert calibration.optimal_temperature == pytest.approx(1, rel=1e-9)
    assert calibration.ece == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "why"),
    [
        ([[2.0, 1.0], [0.0, 3.0]], [0, 1], "every label has the highest logit"),
        ([[2.0, 1.0], [0.0, 3.0]], [1, 0], "the labels have no higher logits"),
        ([[0.1, 0.1, 0.1]], [2], "the highest logit"),
        ([[0.0, 0.0]], [1], "the highest logit"),
    ],
)
def test_without_a_smallest_nll_there_is_no_temperature_and_a_reason(logits, labels, why):
    calibration = Calibration.from_logits(np.array(logits), np.array(labels))
    assert calibration.optimal_temperature is None
    assert why in calibration.undefined["optimal_temperature"]
    assert math.isfinite(calibration.nll)


def test_a_single_class_split_and_an_absent_class_are_measured():
    calibration = Calibration.from_logits(np.array([[2.0, 1, 0], [0, 1, 0]]), np.array([0, 0]))
    assert calibration.accuracy == 1 / 2
    assert calibration.nll > 0


def test_a_split_without_samples_has_reasons_for_every_none(nothing):
    calibration = Calibration.from_logits(*nothing)
    names = ("accuracy", "confidence", "nll", "brier", "ece", "optimal_temperature")
    assert all(getattr(calibration, name) is None for name in names)
    assert {calibration.undefined[name] for name in names} == {"the split has no samples"}
    assert calibration.undefined["bins"] == "15 of 15 bins hold no samples"
    assert sum(calibration.bins.count) == 0


def test_probabilities_and_labels_of_another_data_set_are_errors():
    with pytest.raises(UsageError, match="logits looks like probabilities"):
        Calibration.from_logits(P, HAND_LABELS)
    with pytest.raises(UsageError, match="labels holds 2, but logits of 2 classes"):
        Calibration.from_logits(HAND, HAND_LABELS + 1)
