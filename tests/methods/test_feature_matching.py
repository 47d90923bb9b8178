"""Matching features of pairs of layers: which are compared, what they weigh, what is refused."""

import math

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import FeatureLoss, HintLoss
from kdlab.methods import FeatureMatching
from kdlab.models import DigitsConv
from kdlab.teachers import EMATeacher, FrozenTeacher, TeacherEnsemble

REL = 1e-5  # float32


class Remembering(FeatureLoss):
    """10 x the mean of the student's features + that of the teacher's; keeps what it is called with."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def compare(self, student, teacher):
        self.seen.append((student, teacher))
        return 10 * student.mean() + teacher.mean()


def method(student_layers=("layer1", "pool"), teacher_layers=("layer3", "layer2"), teacher=None, **arguments):
    return FeatureMatching(
        **{"feature_loss": Remembering(), "student": DigitsConv(), **arguments},
        teacher=teacher or FrozenTeacher(DigitsConv()),
        student_layers=list(student_layers),
        teacher_layers=list(teacher_layers),
    )


def features(**by_name):
    return {name: np.full((4, 2), float(value)) for name, value in by_name.items()}


def test_pairs_of_layers_are_compared_in_order_and_summed(made_up):
    system = method(feature_weight=3.0)
    terms = made_up.hook(system, features(layer1=1, pool=2), features(layer3=5, layer2=7))
    assert [(s.mean().item(), t.mean().item()) for s, t in system.feature_loss.seen] == [(1, 5), (2, 7)]
    assert list(terms) == ["label", "feature"]
    assert terms["feature"] == pytest.approx(3 * (10 * 1 + 5 + 10 * 2 + 7), rel=REL)
    assert terms["label"] == pytest.approx(made_up.cross_entropy, rel=REL)  # weight 1


def test_logits_are_matched_when_they_get_a_weight(made_up):
    given = features(layer1=1, pool=2), features(layer3=5, layer2=7)
    terms = made_up.hook(method(logit_weight=2.0, temperature=3.0, label_weight=0.0), *given)
    assert list(terms) == ["logit", "feature"]
    assert terms["logit"] == pytest.approx(2 * made_up.divergence(3.0), rel=REL)


def test_alpha_weighs_labels_and_logits(made_up):
    given = features(layer1=1, pool=2), features(layer3=5, layer2=7)
    terms = made_up.hook(method(alpha=0.25), *given)
    assert terms["label"] == pytest.approx(0.25 * made_up.cross_entropy, rel=REL)
    assert terms["logit"] == pytest.approx(0.75 * made_up.divergence(4.0), rel=REL)


def test_the_tapped_layers_are_those_that_were_named(sixty_four):
    system = method(("layer2",), ("layer1.0",)).eval()
    student, teacher = system.ask_student(sixty_four), system.ask_teacher(sixty_four)
    network = system.student
    assert student.features["layer2"].equal(network.layer2(network.pool1(network.layer1(sixty_four.image))))
    assert teacher.features["layer1.0"].equal(system.teacher.network.layer1[0](sixty_four.image))
    assert student.features["layer2"].requires_grad
    assert not teacher.features["layer1.0"].requires_grad


def test_one_layer_may_be_compared_with_two(sixty_four):
    system = method(("pool", "pool"), ("layer1", "layer2"))
    system.losses(system.ask_student(sixty_four), system.ask_teacher(sixty_four), sixty_four)
    assert [tuple(t.shape[1:]) for _, t in system.feature_loss.seen] == [(3, 8, 8), (6, 4, 4)]


@pytest.mark.parametrize(("mine", "theirs"), [([], []), (["layer1"], []), (["layer1"], ["layer1", "layer2"])])
def test_layers_that_are_no_pairs_are_refused(mine, theirs):
    with pytest.raises(UsageError, match=r"student_layers \[.*are not pairs; name equally many"):
        method(mine, theirs)


@pytest.mark.parametrize(("mine", "theirs"), [(["layre1"], ["layer1"]), (["layer1"], ["layre1"])])
def test_an_unknown_layer_is_refused_with_close_names_on_either_side(mine, theirs):
    with pytest.raises(UsageError, match=r"DigitsConv has no layer 'layre1'; did you mean layer1"):
        method(mine, theirs)


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_no_factor_is_refused(weight):
    with pytest.raises(UsageError, match=r"feature_weight is .*0 or more"):
        method(feature_weight=weight)


def test_no_weight_at_all_leaves_nothing_to_learn():
    with pytest.raises(UsageError, match="label_weight, logit_weight and feature_weight are all 0"):
        method(label_weight=0.0, feature_weight=0.0)


def test_an_ensemble_of_teachers_has_no_layers():
    teacher = TeacherEnsemble([FrozenTeacher(DigitsConv()), FrozenTeacher(DigitsConv())])
    with pytest.raises(UsageError, match="TeacherEnsemble has no layers to tap"):
        method(teacher=teacher)


def test_features_can_come_from_the_students_own_average(fit):
    system = method(("layer1",), ("layer1",), EMATeacher(0.5), feature_loss=HintLoss(), feature_weight=1.0)
    fit(system, max_epochs=1)
    assert system.teacher.steps == 9
    assert system.teacher.taps.layers == ("layer1",)


def test_half_precision_features_and_logits_give_finite_float32_terms(made_up):
    system = method(("a",), ("b",), student=torch.nn.ModuleDict({"a": DigitsConv()}),
                    teacher=FrozenTeacher(torch.nn.ModuleDict({"b": DigitsConv()})), feature_loss=HintLoss())  # fmt: skip
    terms = made_up.hook(system, {"a": [[300.0]] * 4}, {"b": [[-300.0]] * 4}, dtype=torch.float16)
    assert terms["feature"] == 360_000.0  # the largest float16 is 65,504


def test_the_hook_runs_no_network(made_up):
    system = method()

    def refuse(*_):
        pytest.fail("the hook called a network")

    for module in (*system.student.modules(), *system.teacher.modules()):
        module.register_forward_pre_hook(refuse)
    made_up.hook(system, features(layer1=1, pool=2), features(layer3=5, layer2=7))
