"""Confusion against counts by hand and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from kdlab.analysis import Confusion
from kdlab.analysis.confusion import ConfusedPair
from kdlab.errors import UsageError

LABELS = np.array([0, 0, 0, 1, 1, 3])
ANSWERS = np.array([0, 1, 1, 1, 0, 1])  # class 2 is absent and never answered


def logits_of(answers, k=4):
    """Logits whose highest is the answer."""
    return 5 * np.eye(k)[answers] - 1


def test_rows_are_labels_and_columns_are_answers():
    confusion = Confusion.from_logits(logits_of(ANSWERS), LABELS)
    assert confusion.matrix.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert confusion.support == (3, 2, 0, 1)
    assert confusion.accuracy == (1 / 3, 1 / 2, None, 0)
    assert confusion.undefined == {"accuracy": "no samples of class 2"}
    assert confusion.n == 6


def test_the_matrix_is_that_of_scikit_learn(made):
    confusion = Confusion.from_logits(made.student, made.labels)
    answers = made.student.argmax(axis=1)
    np.testing.assert_array_equal(confusion.matrix, confusion_matrix(made.labels, answers, labels=range(7)))
    np.testing.assert_allclose(confusion.accuracy, recall_score(made.labels, answers, average=None))
    assert confusion.undefined == {}


def test_the_most_confused_pairs_come_first_and_ties_by_class():
    confusion = Confusion.from_logits(logits_of(ANSWERS), LABELS)
    pairs = [ConfusedPair(0, 1, 2, 2 / 3), ConfusedPair(1, 0, 1, 1 / 2), ConfusedPair(3, 1, 1, 1.0)]
    assert confusion.most_confused() == pairs
    assert confusion.most_confused(2) == pairs[:2]


def test_a_faultless_network_confuses_nothing():
    assert Confusion.from_logits(logits_of(LABELS), LABELS).most_confused() == []


def test_the_difference_is_student_minus_teacher():
    student, teacher = (Confusion.from_logits(logits_of(answers), LABELS) for answers in (ANSWERS, LABELS))
    difference = student.minus(teacher)
    assert difference.matrix.tolist() == [[-2, 2, 0, 0], [1, -1, 0, 0], [0, 0, 0, 0], [0, 1, 0, -1]]
    assert difference.accuracy == (pytest.approx(-2 / 3), -1 / 2, None, -1)
    assert difference.undefined == {"accuracy": "no samples of class 2"}


def test_different_splits_have_no_difference():
    student = Confusion.from_logits(logits_of(ANSWERS), LABELS)
    for labels in (LABELS[::-1].copy() * 0, LABELS[:5]):
        other = Confusion.from_logits(logits_of(ANSWERS[: len(labels)]), labels)
        with pytest.raises(UsageError, match=r"of 6 and \d samples with different labels; compare two networks"):
            student.minus(other)


def test_a_split_of_one_class_and_one_without_samples_are_counted(nothing):
    one = Confusion.from_logits(logits_of([1, 2]), np.array([1, 1]))
    assert one.accuracy == (None, 1 / 2, None, None)
    assert one.undefined == {"accuracy": "no samples of class 0, 2, 3"}
    none = Confusion.from_logits(*nothing)
    assert (none.n, none.matrix.sum(), none.accuracy, none.most_confused()) == (0, 0, (None,) * 4, [])


def test_labels_that_do_not_fit_are_an_error():
    with pytest.raises(UsageError, match="labels has 6 entries but the logits have 2 rows"):
        Confusion.from_logits(logits_of([0, 1]), LABELS)


def test_ties_of_many_classes_are_in_class_order_too():
    labels = np.repeat(np.arange(60), 2)
    answers = (labels + 1 + np.arange(120) % 2) % 60  # every label is taken once for each of the next two classes
    pairs = Confusion.from_logits(logits_of(answers, 60), labels).most_confused(1000)
    assert len(pairs) == 120
    assert [(pair.label, pair.answer) for pair in pairs] == sorted((pair.label, pair.answer) for pair in pairs)
