import math

import pytest

from kdlab.errors import UsageError
from kdlab.methods.weights import TermWeights, term_weights

DEFAULT = TermWeights(label=0.1, logit=0.9)


def test_nothing_given_is_the_default():
    assert term_weights(None, None, None, DEFAULT) == DEFAULT


def test_alpha_multiplies_the_label_term():
    assert term_weights(0.25, None, None, DEFAULT) == TermWeights(label=0.25, logit=0.75)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 0, 1])
def test_alpha_may_be_all_or_nothing(alpha):
    assert term_weights(alpha, None, None, DEFAULT) == TermWeights(label=alpha, logit=1 - alpha)


def test_weights_are_taken_by_name_and_need_not_add_up():
    assert term_weights(None, 2.0, 5.0, DEFAULT) == TermWeights(label=2.0, logit=5.0)
    assert term_weights(None, 0.0, None, DEFAULT) == TermWeights(label=0.0, logit=0.9)
    assert term_weights(None, None, 0.0, DEFAULT) == TermWeights(label=0.1, logit=0.0)


@pytest.mark.parametrize(("label", "logit", "name"), [(0.2, None, "label_weight"), (None, 0.8, "logit_weight")])
def test_alpha_and_a_weight_together_are_an_error_even_where_they_agree(label, logit, name):
    with pytest.raises(UsageError, match=f"alpha: 0.2 and {name}: .* are both given.*keep one") as caught:
        term_weights(0.2, label, logit, DEFAULT)
    assert "\n" not in str(caught.value)


def test_a_weight_of_zero_beside_alpha_is_a_weight_that_was_given():
    with pytest.raises(UsageError, match="alpha: 0 and label_weight: 0 are both given"):
        term_weights(0.0, 0.0, None, DEFAULT)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, math.inf])
def test_alpha_outside_of_zero_to_one_is_an_error_with_its_value(alpha):
    with pytest.raises(UsageError, match=f"alpha is {alpha:g}, .*choose 0 <= alpha <= 1"):
        term_weights(alpha, None, None, DEFAULT)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["label_weight", "logit_weight"])
def test_a_negative_or_endless_weight_is_an_error_with_its_name_and_value(name, weight):
    given = {"label_weight": None, "logit_weight": None, name: weight}
    with pytest.raises(UsageError, match=f"{name} is {weight:g}, but it must be a finite number, 0 or more"):
        term_weights(None, **given, default=DEFAULT)
