"""A training image's multiply-adds: student forward and backward, teacher forward."""

import pytest
import torch
from torch import nn

from kdlab.models import DigitsConv, MobileNetV2, ResNet20
from kdlab.profiling import NotMeasured
from kdlab.profiling.counters import ForwardCount
from kdlab.profiling.training_macs import training_macs

DIGITS = (1, 8, 8)
STUDENT = 64 * 27 + 16 * 162 + 4 * 324 + 60


def test_a_students_backward_is_twice_its_forward_less_the_image():
    macs = training_macs([DigitsConv()], [], DIGITS)
    assert macs.student_forward_macs == STUDENT
    assert macs.student_backward_macs == 2 * STUDENT - 64 * 27
    assert macs.teacher_forward_macs == 0
    assert macs.total == 3 * STUDENT - 64 * 27


def test_a_depthwise_network_costs_about_three_forwards_in_training():
    macs = training_macs([MobileNetV2()], [], (3, 32, 32))
    first = 16 * 16 * 16 * 27  # the first convolution, whose input needs no gradient
    assert macs.student_backward_macs == 2 * macs.student_forward_macs - first
    assert macs.student_forward_macs == pytest.approx(6.52e6, abs=5e3)


def test_a_student_with_everything_frozen_but_its_last_layer_costs_one_small_gradient():
    student = DigitsConv().requires_grad_(False)
    student.fc.requires_grad_(True)
    assert training_macs([student], [], DIGITS).student_backward_macs == 60
    assert training_macs([student.requires_grad_(False)], [], DIGITS).student_backward_macs == 0


def test_a_teacher_that_remembers_costs_the_share_that_it_is_asked():
    a, b, c = (DigitsConv() for _ in range(3))
    macs = training_macs([], [(a, 0.25), (b, 1.0), (c, 0.5)], DIGITS)
    assert macs.teacher_forward_macs == (0.25 + 1 + 0.5) * STUDENT
    assert macs.teacher_asked_share == pytest.approx(1.75 / 3)
    assert training_macs([], [(a, 1.0)], DIGITS).teacher_asked_share == 1
    assert training_macs([], [], DIGITS).teacher_asked_share is None
    assert training_macs([], [(a, 0.0)], DIGITS).teacher_forward_macs == 0


class Recurrent(nn.Module):
    """64 pixels in 8 rows through an LSTM of 16 units: 8 * (8 + 16) * 4 * 16 = 12,288, and 160 in a linear layer."""

    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, image):
        return self.fc(self.lstm(image[:, 0])[0][:, -1])


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_nobody_counts_is_a_reason_and_not_too_small_a_figure(role):
    trained, teachers = ([Recurrent()], []) if role == "student" else ([DigitsConv()], [(Recurrent(), 1.0)])
    found = training_macs(trained, teachers, DIGITS)
    assert isinstance(found, NotMeasured)
    assert found.reason.startswith("Recurrent: nobody counts aten::lstm (x1), which may multiply and add; ")


def test_a_count_that_differs_from_fvcores_by_more_than_one_percent_is_a_reason(monkeypatch):
    for fvcore, trusted in ((STUDENT, True), (STUDENT * 0.995, True), (STUDENT * 0.98, False), (0, False)):
        count = ForwardCount(int(fvcore), {}, {})
        monkeypatch.setattr("kdlab.profiling.training_macs.count_with_fvcore", lambda *_, count=count: count)
        assert isinstance(training_macs([DigitsConv()], [], DIGITS), NotMeasured) is not trusted


def test_a_teacher_costs_the_forward_pass_of_each_of_its_networks():
    a, b, c = ((DigitsConv(), 1.0) for _ in range(3))
    assert training_macs([DigitsConv()], [a], DIGITS).teacher_forward_macs == STUDENT
    assert training_macs([DigitsConv()], [a, b, c], DIGITS).teacher_forward_macs == 3 * STUDENT
    assert training_macs([DigitsConv()], [a, a], DIGITS).teacher_forward_macs == 2 * STUDENT
    assert training_macs([], [(ResNet20(), 1.0)], (3, 32, 32)).teacher_forward_macs == pytest.approx(40.8e6, abs=5e4)


def test_networks_that_learn_together_add_up():
    one = training_macs([DigitsConv()], [], DIGITS)
    three = training_macs([DigitsConv(), DigitsConv(), DigitsConv()], [], DIGITS)
    assert three.student_forward_macs == 3 * one.student_forward_macs
    assert three.student_backward_macs == 3 * one.student_backward_macs


def test_counting_leaves_both_networks_as_they_were():
    student, teacher = DigitsConv().train(), DigitsConv().eval()
    before = [tensor.clone() for network in (student, teacher) for tensor in network.state_dict().values()]
    state = torch.random.get_rng_state()
    with torch.inference_mode():  # as in a test loop
        training_macs([student], [(teacher, 1.0)], DIGITS)
    after = [tensor for network in (student, teacher) for tensor in network.state_dict().values()]
    assert all(a.equal(b) for a, b in zip(before, after, strict=True))
    assert student.training
    assert not teacher.training
    assert all(p.grad is None and p.requires_grad for p in student.parameters())
    assert torch.random.get_rng_state().equal(state)
