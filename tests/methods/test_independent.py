import math

import pytest
import torch

from kdlab.errors import UsageError
from kdlab.methods import IndependentStudent
from kdlab.models import DigitsConv
from kdlab.types import Batch, Outputs

# probabilities (1/4, 3/4) and (1/2, 1/2)
LOGITS = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]])


def batch(label):
    count = len(label)
    return Batch(torch.zeros(count, 1, 8, 8), label, torch.arange(count), torch.zeros(count, dtype=torch.long))


def losses(label, logits=LOGITS, **arguments):
    method = IndependentStudent(student=DigitsConv(num_classes=2), **arguments)
    return method.losses(Outputs(logits), None, batch(label))


def test_the_only_term_is_the_mean_cross_entropy_with_the_labels():
    terms = losses(torch.tensor([0, 1]))
    assert list(terms) == ["label"]
    # -(ln 1/4 + ln 1/2) / 2; float32 has 1.2e-7
    assert terms["label"].item() == pytest.approx(1.5 * math.log(2), rel=1e-6)


def test_soft_labels_weigh_the_classes():
    terms = losses(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    first = -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    assert terms["label"].item() == pytest.approx((first + math.log(2)) / 2, rel=1e-6)


def test_label_smoothing_spreads_its_share_over_all_classes():
    terms = losses(torch.tensor([0, 0]), label_smoothing=0.2)
    first = -0.9 * math.log(0.25) - 0.1 * math.log(0.75)  # 0.8 + 0.2 / 2 on the label's class
    assert terms["label"].item() == pytest.approx((first + math.log(2)) / 2, rel=1e-6)


def test_half_precision_logits_give_a_float32_term():
    assert losses(torch.tensor([0, 1]), logits=LOGITS.half())["label"].dtype == torch.float32


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, math.nan])
def test_label_smoothing_that_is_no_share_is_an_error(share):
    with pytest.raises(UsageError, match=f"label_smoothing is {share:g}, .*choose 0 <= share < 1"):
        losses(torch.tensor([0, 1]), label_smoothing=share)


def test_an_independent_student_has_no_teacher():
    method = IndependentStudent(student=DigitsConv())
    assert method.teacher is None
    assert method.ask_teacher(batch(torch.tensor([0]))) is None
