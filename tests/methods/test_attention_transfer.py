"""The hook of attention transfer against the formula in float64."""

import numpy as np
import pytest

from kdlab.methods import AttentionTransfer
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher


def method(**arguments):
    layers = {"student_layers": ["layer1", "layer2"], "teacher_layers": ["layer1", "layer3"]}
    return AttentionTransfer(FrozenTeacher(DigitsConv()), student=DigitsConv(), **layers, **arguments)


def attention(maps):
    rows = (maps**2).mean(axis=1).reshape(len(maps), -1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def hook(made_up, **arguments):
    student, teacher = made_up.maps
    pairs = {"layer1": student, "layer2": teacher}, {"layer1": teacher, "layer3": 2 * teacher}
    return made_up.hook(method(**arguments), *pairs)


def test_attention_maps_of_all_pairs_are_compared_with_weight_1000(made_up):
    student, teacher = (attention(maps) for maps in made_up.maps)
    expected = ((student - teacher) ** 2).mean()  # the second pair differs by a factor, which attention does not see
    terms = hook(made_up)
    assert list(terms) == ["label", "attention"]
    assert terms["label"] == pytest.approx(made_up.cross_entropy, rel=1e-5)  # float32
    assert terms["attention"] == pytest.approx(1000 * expected, rel=1e-5)


def test_its_weight_is_its_own_and_logits_are_added_on_request(made_up):
    before = hook(made_up)["attention"]
    terms = hook(made_up, attention_weight=10.0, alpha=0.5)
    assert list(terms) == ["label", "logit", "attention"]
    assert terms["attention"] == pytest.approx(before / 100, rel=1e-6)
    assert terms["logit"] == pytest.approx(0.5 * made_up.divergence(4.0), rel=1e-5)
