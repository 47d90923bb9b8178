"""Made-up answers of one split."""

import numpy as np
import pytest


class Made:
    """Random logits of a teacher and of two students that lean towards it, the second with small logits."""

    def __init__(self, n=200, k=7, seed=0):
        rng = np.random.default_rng(seed)
        self.teacher = 3 * rng.standard_normal((n, k))
        self.student = 0.7 * self.teacher + 2 * rng.standard_normal((n, k))
        self.other = 0.2 * self.teacher + 0.5 * rng.standard_normal((n, k))
        self.labels = np.where(rng.random(n) < 0.6, self.teacher.argmax(axis=1), rng.integers(0, k, n))
        self.features = {"early": rng.standard_normal((n, 3, 2, 2)), "late": rng.standard_normal((n, 5))}


@pytest.fixture
def made():
    return Made()


@pytest.fixture
def nothing():
    """Logits and labels of a split without samples, of 4 classes."""
    return np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
