"""The hook of relational KD against the formula in float64, by scipy's distances and a plain loop over triples."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from kdlab.methods import RelationalKD
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher


def huber(difference):
    size = np.abs(difference)
    return np.where(size < 1, 0.5 * size**2, size - 0.5)


def cosines(rows):
    angles = np.zeros((len(rows),) * 3)
    for i, j, k in itertools.product(range(len(rows)), repeat=3):
        if i not in (j, k):
            one, other = rows[j] - rows[i], rows[k] - rows[i]
            angles[i, j, k] = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    return angles


@pytest.mark.parametrize("weights", [{}, {"relation_weight": 0.5, "distance_weight": 2.0, "angle_weight": 3.0}])
def test_distances_and_angles_of_embeddings_of_any_width_are_compared(made_up, weights):
    layers = {"student_layers": ["pool"], "teacher_layers": ["pool"]}
    method = RelationalKD(FrozenTeacher(DigitsConv()), student=DigitsConv(), **layers, **weights)
    student, teacher = made_up.rows
    terms = made_up.hook(method, {"pool": student}, {"pool": teacher})
    assert list(terms) == ["label", "relation"]
    # pdist has each pair once: its mean is that over all pairs of different samples
    mine, theirs = (squareform(pdist(rows)) / pdist(rows).mean() for rows in made_up.rows)
    distance = huber(mine - theirs).mean()
    angle = huber(cosines(student) - cosines(teacher)).mean()
    overall, for_distance, for_angle = weights.values() if weights else (1, 25, 50)
    assert terms["relation"] == pytest.approx(overall * (for_distance * distance + for_angle * angle), rel=1e-5)
    assert terms["label"] == pytest.approx(made_up.cross_entropy, rel=1e-5)  # float32
