"""CKA against the definition by kernels, closed forms and laws."""

import numpy as np
import pytest
import torch

from kdlab.analysis import CKAMatrix, MinibatchCKA, linear_cka
from kdlab.analysis.cka import unbiased_hsic
from kdlab.errors import UsageError


def features(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def by_kernels(x, y):
    """tr(K H L H) over its norms, with the centring matrix H written out (Gretton et al. 2005)."""
    h = np.eye(len(x)) - 1 / len(x)
    k, l = h @ x @ x.T @ h, h @ y @ y.T @ h  # noqa: E741
    return np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))


@pytest.mark.parametrize(("n", "d_x", "d_y"), [(50, 3, 4), (10, 40, 60), (20, 5, 80), (30, 30, 30)])
def test_cka_is_the_kernel_definition_whichever_way_it_is_computed(n, d_x, d_y):
    x, y = features(n, d_x, 1) + 7, features(n, d_y, 2)
    assert linear_cka(x, y) == pytest.approx(by_kernels(x, y), rel=1e-10)


def test_cka_of_single_features_is_the_squared_correlation():
    x, y = features(40, 1, 1), features(40, 1, 2)
    assert linear_cka(x, y) == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2, rel=1e-10)


def test_cka_does_not_see_rotation_shift_and_scale_but_sees_a_stretched_direction():
    x = features(60, 6, 1)
    rotation, _ = np.linalg.qr(features(6, 6, 2))
    assert linear_cka(x, 3.5 * x @ rotation + 100) == pytest.approx(1, abs=1e-10)
    stretched = x * np.array([10, 1, 1, 1, 1, 1])
    assert linear_cka(x, stretched) < 0.9


def test_orthogonal_features_have_a_cka_of_zero():
    x, y = np.array([[1.0], [-1], [1], [-1]]), np.array([[1.0], [1], [-1], [-1]])
    assert linear_cka(x, y) == 0


def test_maps_are_compared_flattened_and_in_float64():
    maps = torch.randn(30, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    x = maps.flatten(1).double().numpy()
    y = features(30, 5, 1)
    assert linear_cka(maps, y) == pytest.approx(by_kernels(x, y), rel=1e-10)


def test_a_large_mean_does_not_drown_the_features():
    x, y = features(50, 3, 1), features(50, 4, 2)
    assert linear_cka(x + 1e6, y) == pytest.approx(linear_cka(x, y), rel=1e-6)  # float64 keeps 10 digits of x here


@pytest.mark.parametrize("constant", [np.zeros((8, 3)), np.full((8, 3), 0.1), np.full((8, 2, 2, 2), 1e5 / 3)])
def test_a_constant_layer_has_no_cka(constant):
    assert linear_cka(constant, features(8, 3, 0)) is None
    assert linear_cka(features(8, 3, 0), constant) is None


def test_the_matrix_has_student_layers_in_rows_and_is_that_of_single_pairs(made):
    student = {"stem": made.features["early"], "head": made.features["late"], "dead": np.ones((200, 4))}
    teacher = {"head": made.features["late"], "stem": made.features["early"][:, :1]}
    matrix = CKAMatrix.from_features(student, teacher)
    assert (matrix.n, matrix.student_layers, matrix.teacher_layers) == (200, ("stem", "head", "dead"), ("head", "stem"))
    for row, x in zip(matrix.values, (student["stem"], student["head"]), strict=False):
        assert row == (
            pytest.approx(linear_cka(x, teacher["head"]), rel=1e-12),
            pytest.approx(linear_cka(x, teacher["stem"]), rel=1e-12),
        )
    assert matrix.values[1][0] == pytest.approx(1)
    assert matrix.values[2] == (None, None)
    assert matrix.undefined == {"values": "student layer dead: the same for every sample"}


def test_a_matrix_of_no_samples_and_of_one_sample_has_reasons():
    for n, why in ((0, "the split has no samples"), (1, "student layer a, teacher layer b: the same for every sample")):
        matrix = CKAMatrix.from_features({"a": np.ones((n, 3))}, {"b": np.ones((n, 2))})
        assert matrix.values == ((None,),)
        assert matrix.undefined == {"values": why}


def test_layers_of_different_images_and_missing_layers_are_errors():
    with pytest.raises(UsageError, match="student layer a has 4 samples but teacher layer b has 5; give the features"):
        CKAMatrix.from_features({"a": np.ones((4, 3))}, {"b": np.ones((5, 2))})
    with pytest.raises(UsageError, match="first features has 4 samples but second features has 5"):
        linear_cka(np.ones((4, 3)), np.ones((5, 3)))
    with pytest.raises(UsageError, match="no layer is tapped in the student or the teacher"):
        CKAMatrix.from_features({}, {"b": np.ones((5, 2))})
    with pytest.raises(UsageError, match="student layer a holds nan"):
        CKAMatrix.from_features({"a": np.full((4, 3), np.nan)}, {"b": np.ones((4, 2))})


def test_unbiased_hsic_is_the_mean_over_all_quadruples_of_different_samples():
    # Song et al. 2012: mean of k_ij (l_ij + l_qr - 2 l_iq) over ordered i, j, q, r, all different
    from itertools import permutations

    x, y = features(6, 2, 1), features(6, 3, 2)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(6), 4)]
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    assert unbiased_hsic(k, l) == pytest.approx(np.mean(terms), rel=1e-10)


def test_minibatch_cka_of_one_batch_is_one_for_equal_layers_and_ignores_the_mean():
    x, y = features(32, 8, 1), features(32, 5, 2)
    same, plain, shifted = MinibatchCKA(), MinibatchCKA(), MinibatchCKA()
    same.update(x, 2 * x)
    plain.update(x, y)
    shifted.update(x + 50, y)
    assert same.compute() == pytest.approx(1)
    assert shifted.compute() == pytest.approx(plain.compute(), abs=1e-9)
    assert plain.n == 32


def test_minibatch_cka_of_unrelated_wide_layers_is_near_zero_where_the_plain_one_is_not():
    x, y = features(400, 64, 1), features(400, 64, 2)
    cka = MinibatchCKA()
    for start in range(0, 400, 20):
        cka.update(x[start : start + 20], y[start : start + 20])
    assert linear_cka(x[:20], y[:20]) > 0.6
    assert abs(cka.compute()) < 0.1
    assert cka.n == 400


def test_minibatch_cka_agrees_with_cka_of_all_samples_for_related_layers():
    x = features(2000, 6, 1)
    y = x @ features(6, 6, 2) + 0.5 * features(2000, 6, 3)
    cka = MinibatchCKA()
    for start in range(0, 2000, 50):
        cka.update(x[start : start + 50], y[start : start + 50])
    assert cka.compute() == pytest.approx(linear_cka(x, y), abs=0.03)  # sampling error of 40 batches


def test_minibatch_cka_is_none_before_the_first_batch_and_for_a_constant_layer():
    cka = MinibatchCKA()
    assert cka.compute() is None
    cka.update(np.ones((5, 2)), features(5, 2, 1))
    assert cka.compute() is None


def test_minibatch_cka_refuses_batches_that_are_too_small():
    with pytest.raises(UsageError, match="the batch has 3 samples, but unbiased CKA needs 4; drop it or merge it"):
        MinibatchCKA().update(np.ones((3, 2)), np.ones((3, 2)))


def test_cka_never_exceeds_one_by_rounding():
    assert max(linear_cka(x, 3 * x + 1) for x in (features(12, 5, seed) for seed in range(200))) == 1
