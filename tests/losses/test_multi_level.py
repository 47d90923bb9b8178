"""Multi-level KD against an independent float64 formula, with masks that choose samples and classes."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdlab.errors import UsageError
from kdlab.losses import MultiLevelKD, SoftTargets

ONLY_INSTANCES = {"batch_weight": 0.0, "class_weight": 0.0}
ONLY_PAIRS = {"instance_weight": 0.0, "class_weight": 0.0}
ONLY_CLASSES = {"instance_weight": 0.0, "batch_weight": 0.0}


def formula(student, teacher, temperatures, quantile):
    """The three terms, written out with loops over samples and classes."""
    confidence, mass = softmax(teacher, axis=1).max(axis=1), softmax(teacher, axis=1).sum(axis=0)
    samples = [i for i, c in enumerate(confidence) if c <= np.percentile(confidence, 100 * quantile)]
    classes = [k for k, m in enumerate(mass) if m <= np.percentile(mass, 100 * quantile)]
    n, k = student.shape
    instance = batch = per_class = 0.0
    for temperature in temperatures:
        p_t, p_s = softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)
        instance += temperature**2 * sum(rel_entr(p_t[i], p_s[i]).sum() for i in samples) / n
        batch += sum((p_t[i] @ p_t[j] - p_s[i] @ p_s[j]) ** 2 for i in samples for j in range(n)) / n
        columns_t, columns_s = p_t.T, p_s.T
        per_class += (
            sum((columns_t[a] @ columns_t[b] - columns_s[a] @ columns_s[b]) ** 2 for a in classes for b in range(k)) / k
        )
    return instance, batch, per_class


@pytest.mark.parametrize("quantile", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperatures", [(1.0,), (2.0, 3.0, 4.0, 5.0, 6.0)])
def test_multi_level_kd_agrees_with_the_formula(draw, quantile, temperatures):
    student, teacher = draw(7, 5, seed=1), draw(7, 5, seed=2)
    instance, batch, per_class = formula(student.numpy(), teacher.numpy(), temperatures, quantile)
    assert min(instance, batch, per_class) > 0
    loss = MultiLevelKD(temperatures, quantile, instance_weight=2, batch_weight=3, class_weight=5)
    expected = 2 * instance + 3 * batch + 5 * per_class
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)
    # each term alone, so that none hides behind a larger one
    for arguments, term in ((ONLY_INSTANCES, instance), (ONLY_PAIRS, batch), (ONLY_CLASSES, per_class)):
        alone = MultiLevelKD(temperatures, quantile, **arguments)
        assert alone(student, teacher).item() == pytest.approx(term, rel=1e-9)


def test_pairs_and_classes_are_the_values_by_hand():
    # probabilities (1/2, 1/2), (1/4, 3/4) of the teacher; both (1/2, 1/2) of the student; T = 1
    teacher = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64).log()
    student = torch.zeros(2, 2, dtype=torch.float64)
    # products of samples: teacher 1/2, 1/2, 5/8; student 1/2 each
    pairs = MultiLevelKD([1.0], quantile=1.0, **ONLY_PAIRS)(student, teacher).item()
    assert pairs == pytest.approx((1 / 8) ** 2 / 2, rel=1e-12)
    # products of classes: teacher 5/16, 7/16, 13/16; student 1/2 each
    classes = MultiLevelKD([1.0], quantile=1.0, **ONLY_CLASSES)(student, teacher).item()
    assert classes == pytest.approx((9 + 2 * 1 + 25) / 256 / 2, rel=1e-12)


def test_all_samples_at_one_temperature_are_soft_targets(draw):
    student, teacher = draw(7, 5, seed=1), draw(7, 5, seed=2)
    loss = MultiLevelKD([4.0], quantile=1.0, **ONLY_INSTANCES)
    assert loss(student, teacher).item() == pytest.approx(SoftTargets(4.0)(student, teacher).item(), rel=1e-12)


def test_the_mask_leaves_out_the_samples_the_teacher_is_sure_of(draw):
    teacher, student = draw(4, 5, seed=2), draw(4, 5, seed=1)
    teacher[:2] *= 20  # sure of the first two
    student.requires_grad_()
    MultiLevelKD(**ONLY_INSTANCES)(student, teacher).backward()
    assert not student.grad[:2].any()
    assert student.grad[2:].abs().min() > 0


def test_the_mask_is_the_same_whatever_the_temperature_and_not_a_factor(draw):
    # a factor on an averaged loss would scale the gradients of all samples alike
    teacher, student = draw(6, 5, seed=2), draw(6, 5, seed=1).requires_grad_()
    (half,) = torch.autograd.grad(MultiLevelKD([9.0], quantile=0.5, **ONLY_INSTANCES)(student, teacher), student)
    (full,) = torch.autograd.grad(MultiLevelKD([9.0], quantile=1.0, **ONLY_INSTANCES)(student, teacher), student)
    confidence = softmax(teacher.numpy(), axis=1).max(axis=1)
    kept = torch.from_numpy(confidence <= np.median(confidence))
    assert kept.sum() == 3
    torch.testing.assert_close(half, full * kept[:, None])


def test_the_class_mask_leaves_out_the_products_of_probable_classes():
    teacher = torch.tensor([[3.0, 0.0, 0.0, -1.0], [3.0, 0.5, 0.0, -1.0]], dtype=torch.float64)  # mass falls with k
    student = torch.zeros(2, 4, dtype=torch.float64)
    p_t, p_s = softmax(teacher.numpy(), axis=1), np.full((2, 4), 0.25)
    difference = p_t.T @ p_t - p_s.T @ p_s
    loss = MultiLevelKD([1.0], quantile=0.5, **ONLY_CLASSES)(student, teacher).item()
    assert loss == pytest.approx((difference[2:] ** 2).sum() / 4, rel=1e-12)


def test_multi_level_kd_does_not_see_a_shift(draw):
    student, teacher, loss = draw(7, 5, seed=1), draw(7, 5, seed=2), MultiLevelKD()
    assert loss(student + 100, teacher - 30).item() == pytest.approx(loss(student, teacher).item(), rel=1e-9)


def test_one_sample_counts_in_full(draw):
    student, teacher = draw(1, 5, seed=1), draw(1, 5, seed=2)
    loss = MultiLevelKD([4.0], **ONLY_INSTANCES)
    assert loss(student, teacher).item() == pytest.approx(SoftTargets(4.0)(student, teacher).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperatures": []}, r"temperatures is empty, .*\[2, 3, 4, 5, 6\]"),
        ({"temperatures": [2.0, 0.0]}, "temperature is 0, .*positive"),
        ({"quantile": 0.0}, "quantile is 0, .*share"),
        ({"quantile": 1.5}, "quantile is 1.5, .*share"),
        ({"quantile": math.nan}, "quantile is nan, .*share"),
        ({"instance_weight": -1.0}, "instance_weight is -1, .*0 or more"),
        ({"batch_weight": -1.0}, "batch_weight is -1, .*0 or more"),
        ({"class_weight": math.inf}, "class_weight is inf, .*finite"),
    ],
)
def test_impossible_settings_are_errors_with_value_and_fix(arguments, message):
    with pytest.raises(UsageError, match=message):
        MultiLevelKD(**arguments)


def test_settings_are_shown():
    shown = repr(MultiLevelKD())
    assert "temperatures=[2, 3, 4, 5, 6], quantile=0.5" in shown
    assert "instance_weight=1, batch_weight=1, class_weight=1" in shown
