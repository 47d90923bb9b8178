"""The hook of probabilistic knowledge transfer against the formula in float64."""

import numpy as np
import pytest

from kdlab.methods import ProbabilisticKT
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher


def neighbours(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    kernel = (unit @ unit.T + 1) / 2
    return kernel / kernel.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("weight", "factor"), [({}, 30000.0), ({"neighbour_weight": 5.0}, 5.0)])
def test_neighbourhoods_of_embeddings_of_any_width_are_compared_with_weight_30000(made_up, weight, factor):
    layers = {"student_layers": ["pool"], "teacher_layers": ["pool"]}
    method = ProbabilisticKT(FrozenTeacher(DigitsConv()), student=DigitsConv(), **layers, **weight)
    student, teacher = made_up.rows
    terms = made_up.hook(method, {"pool": student}, {"pool": teacher})
    assert list(terms) == ["label", "neighbour"]
    q, p = neighbours(student), neighbours(teacher)
    assert terms["neighbour"] == pytest.approx(factor * (p * np.log(p / q)).mean(), rel=1e-4)  # float32, eps 1e-7
    assert terms["label"] == pytest.approx(made_up.cross_entropy, rel=1e-5)
