"""The hook of logit standardisation against the formula in float64."""

import numpy as np
import pytest

from kdlab.errors import UsageError
from kdlab.methods import LogitStandardization
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher

REL = 1e-5  # float32 in a difference of logarithms


def method(**arguments):
    teacher = FrozenTeacher(DigitsConv(num_classes=3))
    return LogitStandardization(teacher=teacher, student=DigitsConv(num_classes=3), **arguments)


def standardised_divergence(student, teacher, temperature, ddof):
    p, q = (
        np.exp((z - z.mean(1, keepdims=True)) / z.std(1, ddof=ddof, keepdims=True) / temperature)
        for z in (teacher, student)
    )
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return temperature**2 * (p * np.log(p / q)).sum(1).mean()


def test_by_default_the_weights_are_those_of_the_authors_at_temperature_two(made_up):
    terms = made_up.hook(method())
    assert list(terms) == ["label", "logit"]
    assert terms["label"] == pytest.approx(0.1 * made_up.cross_entropy, rel=REL)
    expected = 9 * standardised_divergence(made_up.student, made_up.teacher, 2.0, ddof=1)
    assert terms["logit"] == pytest.approx(expected, rel=REL)


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_standard_deviation_is_that_of_the_sample_or_of_the_population(made_up, ddof):
    terms = made_up.hook(method(temperature=1.5, ddof=ddof, label_weight=0.0, logit_weight=1.0))
    expected = standardised_divergence(made_up.student, made_up.teacher, 1.5, ddof)
    assert terms == pytest.approx({"logit": expected}, rel=REL)


def test_alpha_is_the_weight_of_the_label_term_here_too(made_up):
    terms = made_up.hook(method(alpha=0.25))
    assert terms["label"] == pytest.approx(0.25 * made_up.cross_entropy, rel=REL)
    expected = 0.75 * standardised_divergence(made_up.student, made_up.teacher, 2.0, 1)
    assert terms["logit"] == pytest.approx(expected, rel=REL)


def test_the_teacher_may_be_scaled_and_shifted(made_up):
    before = made_up.hook(method())
    made_up.teacher = 10 * made_up.teacher + 4
    assert made_up.hook(method()) == pytest.approx(before, rel=REL)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf")])
def test_a_temperature_that_cannot_divide_is_refused(temperature):
    with pytest.raises(UsageError, match="temperature is"):
        method(temperature=temperature)
