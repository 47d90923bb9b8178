"""Decoupled KD against the value by hand, an independent float64 formula, and its law."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from kdlab.errors import UsageError
from kdlab.losses import DecoupledKD, SoftTargets

LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def log(*probabilities):
    return torch.tensor([[math.log(p) for p in probabilities]], dtype=torch.float64)


def formula(student, teacher, labels, temperature):
    """(TCKD, NCKD) of each sample, from probabilities."""
    p, q = (softmax(np.asarray(z) / temperature, axis=1) for z in (teacher, student))
    tckd, nckd = [], []
    for p_i, q_i, y in zip(p, q, labels.tolist(), strict=True):
        tckd.append(rel_entr([p_i[y], 1 - p_i[y]], [q_i[y], 1 - q_i[y]]).sum())
        p_rest, q_rest = np.delete(p_i, y), np.delete(q_i, y)
        nckd.append(rel_entr(p_rest / p_rest.sum(), q_rest / q_rest.sum()).sum())
    return np.array(tckd), np.array(nckd)


def test_decoupled_kd_is_the_value_by_hand():
    student, teacher, label = log(0.25, 0.5, 0.25), log(0.5, 0.25, 0.25), torch.tensor([0])
    # target: (1/2, 1/2) against (1/4, 3/4); others: (1/2, 1/2) against (2/3, 1/3)
    tckd = 0.5 * math.log(4 / 3)
    nckd = 0.5 * math.log(9 / 8)
    assert DecoupledKD(1.0, alpha=1, beta=0)(student, teacher, label).item() == pytest.approx(tckd, rel=1e-12)
    assert DecoupledKD(1.0, alpha=0, beta=1)(student, teacher, label).item() == pytest.approx(nckd, rel=1e-12)
    assert DecoupledKD(1.0, 3, 5)(student, teacher, label).item() == pytest.approx(3 * tckd + 5 * nckd, rel=1e-12)
    twice = DecoupledKD(2.0, 3, 5)(2 * student, 2 * teacher, label).item()  # 2 ln p at T = 2, and T^2 = 4 before it
    assert twice == pytest.approx(4 * (3 * tckd + 5 * nckd), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_decoupled_kd_agrees_with_the_formula(draw, temperature):
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2)
    tckd, nckd = formula(student, teacher, LABELS, temperature)
    expected = temperature**2 * (1.5 * tckd.mean() + 8 * nckd.mean())
    assert DecoupledKD(temperature, 1.5, 8.0)(student, teacher, LABELS).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_the_divergence_is_tckd_plus_the_rest_of_the_teachers_probability_times_nckd(draw, temperature):
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2)
    tckd, nckd = DecoupledKD(temperature, 1, 0), DecoupledKD(temperature, 0, 1)
    for s, t, y in zip(student.split(1), teacher.split(1), LABELS.split(1), strict=True):
        rest = 1 - softmax(t.numpy() / temperature)[0, y.item()]
        total = tckd(s, t, y) + rest * nckd(s, t, y)
        assert total.item() == pytest.approx(SoftTargets(temperature)(s, t).item(), rel=1e-9)


def test_decoupled_kd_does_not_see_a_shift(draw):
    student, teacher, loss = draw(6, 5, seed=1), draw(6, 5, seed=2), DecoupledKD()
    assert loss(student + 100, teacher - 30, LABELS).item() == pytest.approx(loss(student, teacher, LABELS).item())


def test_nckd_does_not_see_the_logit_of_the_label_and_tckd_not_the_order_of_the_others(draw):
    student, teacher = draw(6, 5, seed=1), draw(6, 5, seed=2)
    raised = student.scatter_add(1, LABELS[:, None], torch.full((6, 1), 2.5, dtype=torch.float64))
    nckd, tckd = DecoupledKD(4.0, 0, 1), DecoupledKD(4.0, 1, 0)
    assert nckd(raised, teacher, LABELS).item() == pytest.approx(nckd(student, teacher, LABELS).item(), rel=1e-12)
    assert tckd(raised, teacher, LABELS).item() != pytest.approx(tckd(student, teacher, LABELS).item(), rel=1e-3)
    swapped = student[:1, [0, 2, 1, 4, 3]]  # label 0 stays in place
    assert tckd(swapped, teacher[:1], LABELS[:1]).item() == pytest.approx(
        tckd(student[:1], teacher[:1], LABELS[:1]).item(), rel=1e-12
    )


def test_two_classes_have_no_others_to_confuse(draw):
    student, teacher, labels = draw(4, 2, seed=1), draw(4, 2, seed=2), torch.tensor([0, 1, 1, 0])
    assert DecoupledKD(4.0, 0, 1)(student, teacher, labels).item() == 0
    assert DecoupledKD(4.0, 1, 8)(student, teacher, labels).item() == pytest.approx(
        SoftTargets(4.0)(student, teacher).item()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_probabilities_that_underflow_do_not_make_the_loss_infinite(dtype, temperature):
    # the label's class is certain, impossible, and on a par; large logits that a mask of -1000 would not push down
    teacher = torch.tensor([[3e4, 0.0, -3e4], [-3e4, 3e4, 0.0], [5.0, 5.0, 5.0]]).to(dtype)
    student = teacher.roll(1, dims=1).requires_grad_()
    loss = DecoupledKD(temperature)(student, teacher, torch.tensor([0, 0, 0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert torch.isfinite(student.grad).all()
    assert student.grad.any()


def test_a_sure_teacher_still_teaches_the_order_of_the_others():
    # 1 - p_y = 2e-44 or so: the share of NCKD in soft targets is nothing, and here it is what it is by hand
    teacher = torch.tensor([[100.0, math.log(0.5), math.log(0.5)]])
    student = torch.tensor([[100.0, math.log(2 / 3), math.log(1 / 3)]])
    nckd = DecoupledKD(1.0, alpha=0, beta=1)(student, teacher, torch.tensor([0])).item()
    assert nckd == pytest.approx(0.5 * math.log(9 / 8), rel=1e-5)
    assert SoftTargets(1.0)(student, teacher).item() < 1e-12


def test_missing_labels_are_an_error_with_a_way_out(draw):
    with pytest.raises(UsageError, match=r"DecoupledKD got no labels.*class index of each image.*SoftTargets"):
        DecoupledKD()(draw(2, 3), draw(2, 3))


def test_mixed_labels_are_an_error_with_their_shape(draw):
    with pytest.raises(UsageError, match=r"labels of shape \[2, 3\] \(mixup or CutMix\?\).*data.mixing") as caught:
        DecoupledKD()(draw(2, 3), draw(2, 3), torch.full((2, 3), 1 / 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1, but it must be .*0 or more"),
        ({"beta": math.inf}, "beta is inf, but it must be a finite number"),
        ({"temperature": -4.0}, "temperature is -4"),
    ],
)
def test_impossible_settings_are_errors_with_value_and_fix(arguments, message):
    with pytest.raises(UsageError, match=message):
        DecoupledKD(**arguments)


def test_settings_are_shown():
    assert repr(DecoupledKD()) == "DecoupledKD(temperature=4, alpha=1, beta=8)"
