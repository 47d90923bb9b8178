"""The hook of similarity preserving against the formula in float64."""

import numpy as np
import pytest

from kdlab.methods import SimilarityPreserving
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher


def similarities(features):
    rows = features.reshape(len(features), -1)
    gram = rows @ rows.T
    return gram / np.linalg.norm(gram, axis=1, keepdims=True)


@pytest.mark.parametrize(("weight", "factor"), [({}, 3000.0), ({"similarity_weight": 7.0}, 7.0)])
def test_similarities_of_maps_of_any_size_are_compared_with_weight_3000(made_up, weight, factor):
    layers = {"student_layers": ["layer3"], "teacher_layers": ["layer2"]}
    method = SimilarityPreserving(FrozenTeacher(DigitsConv()), student=DigitsConv(), **layers, **weight)
    student, teacher = made_up.maps[0][:, :3], made_up.maps[1]
    terms = made_up.hook(method, {"layer3": student}, {"layer2": teacher})
    assert list(terms) == ["label", "similarity"]
    squared = np.linalg.norm(similarities(student) - similarities(teacher)) ** 2
    assert terms["similarity"] == pytest.approx(factor * squared / 4**2, rel=1e-5)  # float32
    assert terms["label"] == pytest.approx(made_up.cross_entropy, rel=1e-5)
