"""What the analysis refuses, and in which words."""

import numpy as np
import pytest
import torch

from kdlab.analysis.inputs import (
    mean,
    read_features,
    read_labels,
    read_logit_pair,
    read_logits,
    read_temperature,
    share,
)
from kdlab.errors import UsageError

LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]])
PROBABILITIES = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32], ids=str)
def test_tensors_of_any_number_type_become_float64(dtype):
    logits = read_logits(torch.tensor(LOGITS).to(dtype), "logits")
    assert logits.dtype == np.float64
    np.testing.assert_array_equal(logits, LOGITS)  # small integers are exact in every type


def test_a_tensor_with_a_gradient_is_read_without_it():
    np.testing.assert_array_equal(read_logits(torch.tensor(LOGITS, requires_grad=True), "logits"), LOGITS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"student has the shape \[3\]; give \[samples, classes\] with 2 classes or more"),
        (np.zeros((2, 3, 4)), r"student has the shape \[2, 3, 4\]"),
        (np.zeros((2, 1)), r"student has the shape \[2, 1\]"),
        (np.array([["a", "b"]]), "student has the type .*; give real numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), "student has the type complex64; give real numbers"),
        (np.array([[1.0, np.nan], [0.0, 0.0]]), r"student holds nan \(1 of 4 values"),
        (np.array([[1.0, -np.inf], [np.inf, 0.0]]), r"student holds -inf \(2 of 4 values.*run diverged"),
        (np.array([[1.0, 1e39]]), r"student holds 1e\+39"),
        (PROBABILITIES, "student looks like probabilities .*; give the network's output before the softmax"),
        (torch.tensor(PROBABILITIES).bfloat16(), "student looks like probabilities"),
        (np.eye(4), "student looks like probabilities"),  # one-hot labels
    ],
)
def test_what_are_no_logits_is_an_error_in_one_line(values, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_logits(values, "student")
    assert "\n" not in str(caught.value)


def test_a_softmax_in_bfloat16_over_many_classes_is_recognised():
    probabilities = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)).bfloat16().softmax(dim=1)
    with pytest.raises(UsageError, match="looks like probabilities"):
        read_logits(probabilities, "student")


@pytest.mark.parametrize(
    "values",
    [
        PROBABILITIES - 1e-3,  # a negative number is no probability
        np.log(PROBABILITIES + 1e-9),  # log-probabilities are logits
        PROBABILITIES * 1.05,
        np.array([[0.1, 0.4, 0.3, 0.2]]),  # one row: student B of the toy example
        np.zeros((2, 3)),
        np.zeros((0, 3)),
    ],
)
def test_logits_that_are_near_probabilities_but_none_are_taken(values):
    np.testing.assert_array_equal(read_logits(values, "student"), values)


def test_two_shapes_that_differ_are_an_error_with_both():
    with pytest.raises(UsageError, match=r"student has the shape \[2, 3\] but teacher has \[1, 3\]; give the answers"):
        read_logit_pair(LOGITS, "student", LOGITS[:1], "teacher")
    with pytest.raises(UsageError, match=r"student has the shape \[2, 2\] but teacher has \[2, 3\]"):
        read_logit_pair(LOGITS[:, :2], "student", LOGITS, "teacher")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 3]), "labels holds 3, but logits of 3 classes have labels 0 to 2"),
        (np.array([-1, 0]), "labels holds -1"),
        (np.array([0]), "labels has 1 entries but the logits have 2 rows; give one label per sample"),
        (np.array([0.0, 1.0]), "the type float64; give one whole class index per sample"),
        (PROBABILITIES, r"labels has the shape \[2, 3\]"),
        (np.array([True, False]), "the type bool"),
    ],
)
def test_what_are_no_labels_is_an_error(labels, message):
    with pytest.raises(UsageError, match=message):
        read_labels(labels, "labels", LOGITS)


def test_labels_of_any_integer_type_are_taken():
    for dtype in (torch.uint8, torch.int32, torch.int64):
        assert read_labels(torch.tensor([2, 0], dtype=dtype), "labels", LOGITS).tolist() == [2, 0]


def test_feature_maps_are_flattened_sample_by_sample():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(read_features(maps, "stage"), np.arange(24.0).reshape(2, 12))
    assert read_features(np.zeros((0, 3, 2)), "stage").shape == (0, 6)


@pytest.mark.parametrize(("values", "shown"), [(np.zeros(4), r"\[4\]"), (np.zeros((4, 0)), r"\[4, 0\]")])
def test_features_without_a_feature_are_an_error(values, shown):
    with pytest.raises(UsageError, match=f"stage has the shape {shown}; give"):
        read_features(values, "stage")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_a_temperature_that_cannot_divide_logits_is_an_error(temperature):
    with pytest.raises(UsageError, match=f"temperature is {temperature:g}, but it must lie between"):
        read_temperature(temperature)


def test_a_share_of_nothing_and_a_mean_of_nothing_are_none():
    assert (share(0, 0), share(1, 4), mean(np.zeros(0)), mean(np.array([1.0, 2.0]))) == (None, 0.25, None, 1.5)
