"""Relational KD against the value by hand, an independent float64 formula, and laws."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from kdlab.errors import UsageError
from kdlab.losses import RelationalLoss


def smooth_l1(a, b):
    d = np.abs(a - b)
    return np.where(d < 1, d**2 / 2, d - 0.5).mean()


def distances(rows):
    d = cdist(rows, rows)
    return d / d[~np.eye(len(d), dtype=bool)].mean()


def cosines(rows):
    b = len(rows)
    angle = np.zeros((b, b, b))
    for i in range(b):
        for j in range(b):
            for k in range(b):
                u, v = rows[j] - rows[i], rows[k] - rows[i]
                if u.any() and v.any():
                    angle[i, j, k] = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    return angle


def formula(student, teacher):
    s, t = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (student, teacher))
    return smooth_l1(distances(s), distances(t)), smooth_l1(cosines(s), cosines(t))


def rotation(draw, size):
    return torch.linalg.qr(draw(size, size, seed=9)).Q


def test_the_relational_loss_is_the_value_by_hand():
    # three points on a line at 0, 1, 2 against 0, 1, 4: distances 1, 1, 2 over 4/3 and 1, 3, 4 over 8/3
    student, teacher = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [4.0]])
    gaps = np.array([3 / 4 - 3 / 8, 3 / 4 - 9 / 8, 6 / 4 - 12 / 8])
    assert RelationalLoss(1, 0)(student, teacher).item() == pytest.approx(2 * (gaps**2 / 2).sum() / 9, rel=1e-6)
    assert RelationalLoss(0, 1)(student, teacher).item() == pytest.approx(0, abs=1e-12)  # a line is a line
    # bent at the middle point to a right angle: of 27 cosines the two at the middle go from -1 to 0, four others
    # from 1 to 1/sqrt 2
    bent = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    expected = (2 * 0.5 + 4 * (1 - 0.5**0.5) ** 2 / 2) / 27
    assert RelationalLoss(0, 1)(bent, student).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("student_shape", [(5, 8), (5, 2, 3, 2)])
def test_the_relational_loss_agrees_with_the_formula(draw, student_shape):
    student, teacher = draw(*student_shape, seed=1), draw(5, 3, seed=2)
    distance, angle = formula(student, teacher)
    assert RelationalLoss(1, 0)(student, teacher).item() == pytest.approx(distance, rel=1e-10)
    assert RelationalLoss(0, 1)(student, teacher).item() == pytest.approx(angle, rel=1e-10)
    assert RelationalLoss()(student, teacher).item() == pytest.approx(25 * distance + 50 * angle, rel=1e-10)


def test_differences_beyond_one_count_linearly(draw):
    # one far point among ten near ones: its relative distance is above 1 + that of the others
    student, teacher = draw(10, 3, seed=1), draw(10, 3, seed=2)
    student[0] += 100
    assert np.abs(distances(student.numpy()) - distances(teacher.numpy())).max() > 1
    assert RelationalLoss(1, 0)(student, teacher).item() == pytest.approx(formula(student, teacher)[0], rel=1e-10)


def test_the_relational_loss_does_not_see_size_place_or_rotation(draw):
    student, teacher, loss = draw(5, 8, seed=1), draw(5, 6, seed=2), RelationalLoss()
    expected = loss(student, teacher).item()
    assert loss(1e-3 * student + 5, 100 * teacher - 7).item() == pytest.approx(expected, rel=1e-8)
    assert loss(student @ rotation(draw, 8), teacher @ rotation(draw, 6)).item() == pytest.approx(expected, rel=1e-9)
    assert loss(teacher, student).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_samples_with_the_same_features_are_finite(draw, dtype):
    student, teacher = draw(5, 8, seed=1), draw(5, 6, seed=2, dtype=dtype)
    student[1] = student[0]
    student = student.to(dtype).requires_grad_()
    loss = RelationalLoss()(student, teacher)
    loss.backward()
    distance, angle = formula(student.detach().double(), teacher.double())
    assert loss.item() == pytest.approx(25 * distance + 50 * angle, rel=1e-4)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 100  # no gradient of 1 / eps


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_batch_of_one_and_the_same_sample_is_finite(draw, value):
    student = torch.full((4, 8), value, requires_grad=True)
    loss = RelationalLoss()(student, draw(4, 6, dtype=torch.float32))
    loss.backward()
    assert torch.isfinite(loss)
    assert not student.grad.any()
    assert RelationalLoss()(student, student.detach()).item() == 0


def test_samples_that_are_close_together_far_from_zero_keep_their_relations(draw):
    student, teacher = draw(5, 8, seed=1, dtype=torch.float32), draw(5, 6, seed=2, dtype=torch.float32)
    away = student + 1000  # a Gram matrix of these would leave no digit of the distances
    expected = RelationalLoss()(away.double(), teacher.double()).item()
    assert RelationalLoss()(away, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_relational_loss_agrees_with_finite_differences(draw):
    teacher = draw(4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda s: RelationalLoss()(s, teacher), (draw(4, 5, seed=1).requires_grad_(),))


def test_one_sample_relates_to_no_other(draw):
    with pytest.raises(UsageError, match=r"RelationalLoss relates .* this batch has 1; set data.batch_size"):
        RelationalLoss()(draw(1, 8), draw(1, 8))


@pytest.mark.parametrize("name", ["distance_weight", "angle_weight"])
def test_a_negative_weight_is_an_error(name):
    with pytest.raises(UsageError, match=f"{name} is -1, .*0 or more"):
        RelationalLoss(**{name: -1.0})


def test_settings_are_shown():
    assert repr(RelationalLoss()) == "RelationalLoss(distance_weight=25, angle_weight=50)"
