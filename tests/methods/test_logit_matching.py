"""The hook of logit matching on made-up outputs, against values computed by hand."""

import math

import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.losses import DIST, LinearWarmup, LogitLoss, MultiLevelKD, SoftTargets
from kdlab.methods import LogitMatching
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher
from kdlab.types import Batch, Outputs

# at T = 1: student (1/4, 3/4), teacher (1/2, 1/2)
STUDENT = torch.tensor([[0.0, math.log(3.0)]])
TEACHER = torch.tensor([[7.0, 7.0]])
CROSS_ENTROPY = 2 * math.log(2)  # -ln 1/4, label 0
DIVERGENCE = 0.5 * math.log(4 / 3)  # of the teacher from the student at T = 1
REL = 1e-6  # float32 has 1.2e-7; a handful of operations


def method(**arguments):
    teacher = FrozenTeacher(DigitsConv(num_classes=2))
    return LogitMatching(student=DigitsConv(num_classes=2), teacher=teacher, **arguments)


def batch(label):
    count = len(label)
    return Batch(torch.zeros(count, 1, 8, 8), label, torch.arange(count), torch.zeros(count, dtype=torch.long))


def losses(label=(0,), student=STUDENT, teacher=TEACHER, **arguments):
    label = label if isinstance(label, torch.Tensor) else torch.tensor(label)
    terms = method(**arguments).losses(Outputs(student), Outputs(teacher), batch(label))
    assert list(terms) == ["label", "logit"]
    return terms["label"].item(), terms["logit"].item()


def test_the_terms_are_weighted_cross_entropy_and_weighted_divergence():
    label, logit = losses(temperature=1.0, label_weight=2.0, logit_weight=5.0)
    assert label == pytest.approx(2 * CROSS_ENTROPY, rel=REL)
    assert logit == pytest.approx(5 * DIVERGENCE, rel=REL)


def test_the_temperature_softens_both_and_comes_back_squared_in_the_logit_term_only():
    label, logit = losses(student=3 * STUDENT, temperature=3.0, label_weight=1.0, logit_weight=1.0)
    assert label == pytest.approx(math.log(28), rel=REL)  # softmax of (0, 3 ln 3) is (1, 27) / 28
    assert logit == pytest.approx(9 * DIVERGENCE, rel=REL)


def test_the_teacher_is_the_first_argument_of_the_divergence():
    _, logit = losses(student=TEACHER, teacher=STUDENT, temperature=1.0, logit_weight=1.0)
    assert logit == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=REL)


def test_alpha_is_the_weight_of_the_label_term():
    label, logit = losses(temperature=1.0, alpha=0.25)
    assert label == pytest.approx(0.25 * CROSS_ENTROPY, rel=REL)
    assert logit == pytest.approx(0.75 * DIVERGENCE, rel=REL)


def test_by_default_the_weights_are_one_tenth_and_nine_tenths_at_temperature_four():
    label, logit = losses(student=4 * STUDENT)
    assert label == pytest.approx(0.1 * math.log(82), rel=REL)  # softmax of (0, 4 ln 3) is (1, 81) / 82
    assert logit == pytest.approx(0.9 * 16 * DIVERGENCE, rel=REL)


def random_outputs(count=12):
    return torch.randn(count, 2), torch.randn(count, 2), torch.arange(count) % 2


def test_alpha_one_ignores_the_teacher():
    student, teacher, label = random_outputs()
    system = method(alpha=1.0)
    totals, gradients = [], []
    for logits in (teacher, -3 * teacher):
        leaf = student.clone().requires_grad_()
        total = sum(system.losses(Outputs(leaf), Outputs(logits), batch(label)).values())
        total.backward()
        totals.append(total)
        gradients.append(leaf.grad)
    assert totals[0].equal(totals[1])
    assert gradients[0].equal(gradients[1])


def test_alpha_zero_ignores_the_labels():
    student, teacher, label = random_outputs()
    system = method(alpha=0.0)
    totals, gradients = [], []
    for labels in (label, label.flip(0), torch.zeros_like(label)):
        leaf = student.clone().requires_grad_()
        total = sum(system.losses(Outputs(leaf), Outputs(teacher), batch(labels)).values())
        total.backward()
        totals.append(total)
        gradients.append(leaf.grad)
    assert totals[0].equal(totals[1])
    assert totals[0].equal(totals[2])
    assert gradients[0].equal(gradients[1])
    assert gradients[0].equal(gradients[2])


def test_a_teacher_that_is_the_student_adds_nothing():
    student, _, label = random_outputs()
    assert losses(label, student, student)[1] == 0.0


def test_soft_labels_weigh_the_classes_of_the_label_term():
    label, logit = losses(torch.tensor([[0.5, 0.5]]), temperature=1.0, label_weight=1.0, logit_weight=1.0)
    assert label == pytest.approx(-0.5 * math.log(0.25) - 0.5 * math.log(0.75), rel=REL)
    assert logit == pytest.approx(DIVERGENCE, rel=REL)


def test_half_precision_logits_give_float32_terms():
    terms = method().losses(Outputs(STUDENT.half()), Outputs(TEACHER.half()), batch(torch.tensor([0])))
    assert all(term.dtype == torch.float32 for term in terms.values())


class SquaredDifference(LogitLoss):
    """Sees what it is called with."""

    def forward(self, student, teacher, labels=None):
        self.labels = labels
        return ((student - 2 * teacher) ** 2).sum()


def test_another_logit_loss_gets_student_teacher_and_labels_in_this_order():
    loss = SquaredDifference()
    system = method(logit_loss=loss, logit_weight=10.0)
    label = torch.tensor([1])
    terms = system.losses(Outputs(torch.tensor([[1.0, 0.0]])), Outputs(torch.tensor([[3.0, 0.0]])), batch(label))
    assert terms["logit"].item() == 250.0  # 10 (1 - 6)^2
    assert loss.labels is label


def test_the_temperature_of_the_method_is_that_of_its_logit_loss():
    assert method(temperature=3.0, logit_loss=SoftTargets()).logit_loss.temperature == 3.0
    assert method(temperature=3.0, logit_loss=SoftTargets(3.0)).logit_loss.temperature == 3.0
    assert method(temperature=3.0, logit_loss=DIST()).logit_loss.temperature == 3.0
    assert method(temperature=3.0, logit_loss=LinearWarmup(SoftTargets())).logit_loss.loss.temperature == 3.0


def test_a_temperature_that_is_given_is_not_taken_for_the_default_that_it_equals():
    for loss in (SoftTargets(4.0), DIST(tau=4.0), LinearWarmup(SoftTargets(4.0))):
        with pytest.raises(UsageError, match="temperature: 3 and the logit loss's own 4 are both given"):
            method(temperature=3.0, logit_loss=loss)


@pytest.mark.parametrize("loss", [SoftTargets(2.0), DIST(tau=2.0), LinearWarmup(SoftTargets(2.0))])
def test_two_temperatures_are_an_error_that_names_both(loss):
    with pytest.raises(
        UsageError, match=r"temperature: 3 and the logit loss's own 2 are both given.*temperature: null"
    ):
        method(temperature=3.0, logit_loss=loss)


class Own(LogitLoss):
    """A user's loss that says nothing of where its temperature is from."""

    def __init__(self, temperature=2.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student, teacher, labels=None):
        return ((student - teacher) / self.temperature).square().mean()


def test_the_temperature_of_a_users_loss_is_not_replaced_without_a_word():
    with pytest.raises(UsageError, match="temperature: 3 and the logit loss's own 2 are both given"):
        method(temperature=3.0, logit_loss=Own())
    assert method(logit_loss=Own()).logit_loss.temperature == 2.0


def test_a_logit_loss_without_a_temperature_cannot_get_one():
    with pytest.raises(UsageError, match=r"temperature is 3, but MultiLevelKD has no single.*temperature: null"):
        method(temperature=3.0, logit_loss=MultiLevelKD())


def test_a_logit_loss_brings_its_own_temperature():
    assert method(logit_loss=SoftTargets(2.5)).logit_loss.temperature == 2.5
    assert method().logit_loss.temperature == 4.0
    assert method(temperature=1).logit_loss.temperature == 1


def test_a_term_of_weight_zero_is_left_out():
    for weights, kept in (({"alpha": 0.0}, "logit"), ({"alpha": 1.0}, "label")):
        assert list(method(**weights).losses(Outputs(STUDENT), Outputs(TEACHER), batch(torch.tensor([0])))) == [kept]


def test_both_weights_zero_leave_nothing_to_learn():
    with pytest.raises(UsageError, match="label_weight and logit_weight are both 0"):
        method(label_weight=0.0, logit_weight=0.0)


@pytest.mark.parametrize("temperature", [0.0, -2.0])
def test_a_temperature_of_zero_is_an_error_and_not_the_default(temperature):
    with pytest.raises(UsageError, match="temperature is"):
        method(temperature=temperature)


def test_alpha_and_a_weight_are_an_error():
    with pytest.raises(UsageError, match="keep one of the two"):
        method(alpha=0.5, label_weight=0.5)


def test_the_hook_runs_no_forward_pass():
    system = method()

    def refuse(*_):
        pytest.fail("the hook called a network")

    for network in (system.student, system.teacher):
        assert isinstance(network, nn.Module)
        network.register_forward_pre_hook(refuse)
    system.losses(Outputs(STUDENT), Outputs(TEACHER), batch(torch.tensor([0])))


def test_a_method_with_a_term_of_its_own_needs_neither_of_the_two():
    class OwnTerm(LogitMatching):
        def losses(self, student, teacher, batch):
            return {"own": student.logits.square().mean()}

    method = OwnTerm(FrozenTeacher(DigitsConv()), student=DigitsConv(), label_weight=0.0, logit_weight=0.0)
    assert not any(method.weights)
