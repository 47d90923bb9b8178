"""CKA against the definition over quadruples of samples, closed forms and laws."""

from itertools import permutations

import numpy as np
import pytest
import torch

from kdlab.analysis import CKAMatrix
from kdlab.analysis.cka import unbiased_centred
from kdlab.errors import UsageError


def features(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def cka(x, y):
    (row,) = CKAMatrix.from_features({"a": x}, {"b": y}).values
    return row[0]


def hsic_by_quadruples(k, l):  # noqa: E741
    """Song et al. 2012: mean of k_ij (l_ij + l_qr - 2 l_iq) over ordered i, j, q, r, all different."""
    terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(len(k)), 4)]
    return np.mean(terms)


def by_quadruples(x, y):
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic_by_quadruples(k, l) / np.sqrt(hsic_by_quadruples(k, k) * hsic_by_quadruples(l, l))


@pytest.mark.parametrize(("n", "d_x", "d_y"), [(6, 2, 3), (7, 20, 3), (5, 4, 4), (4, 3, 2)])
def test_cka_is_the_unbiased_definition(n, d_x, d_y):
    x, y = features(n, d_x, 1), features(n, d_y, 2)
    assert cka(x, y) == pytest.approx(by_quadruples(x, y), rel=1e-9)


def test_the_centred_kernel_gives_the_unbiased_hsic():
    k, l = (z @ z.T for z in (features(6, 2, 1), features(6, 3, 2)))  # noqa: E741
    product = (unbiased_centred(k) * unbiased_centred(l)).sum()
    assert product / (6 * 3) == pytest.approx(hsic_by_quadruples(k, l), rel=1e-10)
    before = features(6, 6, 3) + features(6, 6, 3).T
    kept = before.copy()
    unbiased_centred(before)
    np.testing.assert_array_equal(before, kept)


def test_of_many_samples_it_is_the_squared_correlation_of_single_features():
    x = features(2000, 1, 1)
    y = 0.6 * x + 0.8 * features(2000, 1, 2)
    # the bias that is taken away is of the order 1 / n
    assert cka(x, y) == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2, abs=2e-3)


def test_unrelated_wide_layers_of_few_samples_lie_around_zero():
    # the plain estimate, with a biased HSIC, is above 0.9 here
    values = [cka(features(30, 500, 2 * seed), features(30, 500, 2 * seed + 1)) for seed in range(40)]
    assert abs(np.mean(values)) < 0.02
    assert min(values) < 0 < max(values)


def test_it_does_not_see_rotation_shift_and_scale_but_sees_a_stretched_direction():
    x = features(60, 6, 1)
    rotation, _ = np.linalg.qr(features(6, 6, 2))
    assert cka(x, 3.5 * x @ rotation + 100) == pytest.approx(1, abs=1e-10)
    assert cka(x, x * np.array([10, 1, 1, 1, 1, 1])) < 0.9


def test_maps_are_compared_flattened_and_in_float64():
    maps = torch.randn(7, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    y = features(7, 5, 1)
    assert cka(maps, y) == pytest.approx(by_quadruples(maps.flatten(1).double().numpy(), y), rel=1e-9)


def test_a_large_mean_does_not_drown_the_features():
    x, y = features(50, 3, 1), features(50, 4, 2)
    assert cka(x + 1e6, y) == pytest.approx(cka(x, y), rel=1e-5)  # float64 keeps 10 digits of x here


@pytest.mark.parametrize("silent", [np.zeros((8, 3)), np.full((8, 3), 0.1), np.full((8, 2, 2, 2), 1e5 / 3), np.eye(8)])
def test_a_layer_that_tells_no_samples_apart_has_no_cka(silent):
    assert cka(silent, features(8, 3, 0)) is None
    assert cka(features(8, 3, 0), silent) is None


def test_the_matrix_has_student_layers_in_rows_and_is_that_of_single_pairs(made):
    student = {"stem": made.features["early"], "head": made.features["late"], "dead": np.ones((200, 4))}
    teacher = {"head": made.features["late"], "stem": made.features["early"][:, :1]}
    matrix = CKAMatrix.from_features(student, teacher)
    assert (matrix.n, matrix.student_layers, matrix.teacher_layers) == (200, ("stem", "head", "dead"), ("head", "stem"))
    for row, x in zip(matrix.values, (student["stem"], student["head"]), strict=False):
        assert row == (pytest.approx(cka(x, teacher["head"])), pytest.approx(cka(x, teacher["stem"])))
    assert matrix.values[1][0] == pytest.approx(1)
    assert matrix.values[2] == (None, None)
    why = "student layer dead: the same for every sample, or every two samples equally far apart"
    assert matrix.undefined == {"values": why}


def test_the_gram_matrix_of_a_layer_is_made_once(monkeypatch):
    centred = []

    def counted(kernel):
        centred.append(len(kernel))
        return unbiased_centred(kernel)

    monkeypatch.setattr("kdlab.analysis.cka.unbiased_centred", counted)
    layers = {name: features(9, 4, seed) for seed, name in enumerate("abc")}
    CKAMatrix.from_features(layers, layers)
    assert centred == [9] * 6  # three layers on each side, nine pairs


@pytest.mark.parametrize(
    ("n", "why"), [(0, "the split has no samples"), (1, "1 samples, and unbiased CKA needs 4"), (3, "3 samples, and")]
)
def test_too_few_samples_have_a_reason(n, why):
    matrix = CKAMatrix.from_features({"a": features(n, 3, 1)}, {"b": features(n, 2, 2)})
    assert matrix.values == ((None,),)
    assert matrix.undefined["values"].startswith(why)


def test_layers_of_different_images_and_missing_layers_are_errors():
    with pytest.raises(UsageError, match="student layer a has 4 samples but teacher layer b has 5; give the features"):
        CKAMatrix.from_features({"a": np.ones((4, 3))}, {"b": np.ones((5, 2))})
    with pytest.raises(UsageError, match="no layer is tapped in the student or the teacher"):
        CKAMatrix.from_features({}, {"b": np.ones((5, 2))})
    with pytest.raises(UsageError, match="student layer a holds nan"):
        CKAMatrix.from_features({"a": np.full((4, 3), np.nan)}, {"b": np.ones((4, 2))})


def test_cka_never_exceeds_one_by_rounding():
    assert max(cka(x, 3 * x + 1) for x in (features(12, 5, seed) for seed in range(200))) == 1
