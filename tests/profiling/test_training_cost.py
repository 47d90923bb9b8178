"""Cost of a whole training, with and without a counter, in one piece and resumed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from kdlab.data import Digits
from kdlab.methods import FitNet, HintTransfer, IndependentStudent, LogitMatching, MutualLearning, SubStudentEnsemble
from kdlab.models import DigitsConv
from kdlab.profiling import NotMeasured, TrainingCost, energy_account, training_cost
from kdlab.teachers import CachedTeacher, FrozenTeacher, TeacherEnsemble

STUDENT = 64 * 27 + 16 * 162 + 4 * 324 + 60  # multiply-adds of DigitsConv
IMAGES = 10 * 18  # no validation
STEPS_PER_EPOCH = 9


STEP_S = 0.5


class Clock(pl.Callback):
    """Half a second goes by in each step, and none otherwise."""

    now = 1000.0

    def on_train_batch_start(self, *args):
        Clock.now += STEP_S

    @staticmethod
    def monotonic():
        return Clock.now


class Counter:
    """Draws 40 W."""

    name = "a counter of 40 W"

    def energy_mj(self):
        return 40e3 * Clock.now

    def conditions(self):
        return {}


@pytest.fixture
def metered(monkeypatch):
    monkeypatch.setattr(energy_account, "find_meter", lambda device: Counter())
    monkeypatch.setattr(training_cost, "time", Clock)


@pytest.fixture
def unmetered(monkeypatch):
    monkeypatch.setattr(energy_account, "find_meter", lambda device: NotMeasured("no counter"))


def independent():
    return IndependentStudent(student=DigitsConv())


def train(cost, method=None, epochs=2, ckpt_path=None, **options):
    data = Digits(train_per_class=18, batch_size=20, val_fraction=0)
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, callbacks=[cost, Clock()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        **options,
    )  # fmt: skip
    trainer.fit(method or independent(), datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


@pytest.mark.usefixtures("metered")
def test_energy_is_what_the_counter_says_over_the_training():
    cost = TrainingCost()
    train(cost)
    assert cost.result.train_s == 2 * STEPS_PER_EPOCH * STEP_S
    assert cost.result.train_watts == pytest.approx(40.0)
    assert cost.result.train_energy_j == pytest.approx(40.0 * cost.result.train_s)
    assert cost.result.meter == "a counter of 40 W"
    assert cost.result.reason is None
    assert set(cost.as_metrics()) == {
        "profile/train_s",
        "profile/train_energy_j",
        "profile/train_watts",
        "profile/train_macs_per_epoch",
    }


@pytest.mark.usefixtures("unmetered")
def test_without_a_counter_energy_is_null_with_a_reason_and_all_else_is_there():
    cost = TrainingCost()
    train(cost)
    result = json.loads(json.dumps(cost.as_dict()))
    assert (result["train_energy_j"], result["train_watts"], result["meter"]) == (None, None, None)
    assert result["reason"] == "no counter"
    assert result["train_s"] > 0
    assert set(cost.as_metrics()) == {"profile/train_s", "profile/train_macs_per_epoch"}


@pytest.mark.usefixtures("unmetered")
def test_multiply_adds_of_an_epoch_are_images_times_student_and_teacher():
    cost = TrainingCost()
    teacher = FrozenTeacher(DigitsConv())
    train(cost, LogitMatching(student=DigitsConv(), teacher=teacher))
    assert cost.result.train_images == 2 * IMAGES
    assert cost.result.images_per_epoch == IMAGES
    backward = 2 * STUDENT - 64 * 27  # the image needs no gradient
    assert cost.result.train_macs_per_epoch == IMAGES * (STUDENT + backward + STUDENT)
    assert cost.as_dict()["per_image"] == {
        "student_forward_macs": STUDENT, "student_backward_macs": backward, "teacher_forward_macs": STUDENT,
        "teacher_asked_share": 1.0,
    }  # fmt: skip


@pytest.mark.usefixtures("unmetered")
def test_all_networks_that_learn_are_in_the_multiply_adds():
    cost = TrainingCost()
    train(cost, MutualLearning(student=DigitsConv(), peers=[DigitsConv(), DigitsConv()]))
    assert cost.result.per_image.student_forward_macs == 3 * STUDENT
    assert cost.result.per_image.teacher_forward_macs == 0


class Pair(IndependentStudent):
    """A user's own method that trains another network beside the student."""

    def __init__(self, companion, **kwargs):
        super().__init__(**kwargs)
        self.companion = companion

    @property
    def networks(self):
        return [self.student, self.companion]

    def ask_student(self, batch):
        student = super().ask_student(batch)
        return student._replace(logits=student.logits + self.companion(batch.image))


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in an ensemble"])
@pytest.mark.usefixtures("unmetered")
def test_a_method_of_a_user_costs_all_networks_that_it_trains(inside):
    pair = Pair(DigitsConv(), student=DigitsConv())
    cost = TrainingCost()
    train(cost, SubStudentEnsemble([pair, independent()]) if inside else pair, epochs=1)
    networks = 3 if inside else 2
    assert cost.result.per_image.student_forward_macs == networks * STUDENT
    assert cost.result.per_image.student_backward_macs == networks * (2 * STUDENT - 64 * 27)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.usefixtures("unmetered")
def test_each_sub_student_sees_its_own_images_and_asks_for_them(shared):
    network = DigitsConv()
    teachers = [FrozenTeacher(network if shared else DigitsConv()) for _ in range(3)]
    members = [LogitMatching(student=DigitsConv(), teacher=teacher) for teacher in teachers]
    cost = TrainingCost()
    train(cost, SubStudentEnsemble(members), epochs=1)
    assert cost.result.train_images == IMAGES
    per_image = cost.result.per_image
    assert per_image.student_forward_macs == per_image.teacher_forward_macs == 3 * STUDENT
    assert per_image.student_backward_macs == 3 * (2 * STUDENT - 64 * 27)


@pytest.mark.usefixtures("metered")
def test_a_resumed_training_adds_up(tmp_path):
    first = TrainingCost()
    train(first).save_checkpoint(tmp_path / "half.ckpt")
    second = TrainingCost()
    train(second, epochs=5, ckpt_path=tmp_path / "half.ckpt")
    assert second.result.train_images == 5 * IMAGES
    assert second.result.images_per_epoch == IMAGES
    assert second.result.train_s == 5 * STEPS_PER_EPOCH * STEP_S
    assert second.result.train_energy_j == pytest.approx(40.0 * second.result.train_s)


@pytest.mark.usefixtures("metered")
def test_a_training_that_had_ended_before_it_was_resumed_is_reported(tmp_path):
    first, second = TrainingCost(), TrainingCost()
    train(first).save_checkpoint(tmp_path / "whole.ckpt")
    train(second, ckpt_path=tmp_path / "whole.ckpt")
    assert second.result == first.result


@pytest.mark.usefixtures("unmetered")
def test_an_epoch_that_was_not_finished_counts_as_the_part_that_it_is():
    cost = TrainingCost()
    train(cost, epochs=10, max_steps=4)
    assert cost.result.train_images == 4 * 20
    assert cost.result.images_per_epoch == IMAGES


def test_energy_that_is_missing_for_a_part_is_missing_for_the_whole(metered, monkeypatch, tmp_path):
    monkeypatch.setattr(energy_account, "find_meter", lambda device: NotMeasured("no counter at first"))
    train(TrainingCost(), epochs=1).save_checkpoint(tmp_path / "half.ckpt")
    monkeypatch.setattr(energy_account, "find_meter", lambda device: Counter())
    cost = TrainingCost()
    train(cost, ckpt_path=tmp_path / "half.ckpt")
    assert cost.result.train_energy_j is None
    assert cost.result.reason == "no counter at first"


@pytest.mark.usefixtures("metered")
def test_a_checkpoint_in_the_middle_holds_what_was_spent_until_then():
    class Saves(TrainingCost):
        states: list

        def on_train_epoch_end(self, trainer, pl_module):
            self.states.append(self.state_dict())

    cost = Saves()
    cost.states = []
    train(cost, epochs=3)
    assert [state["images"] for state in cost.states] == [IMAGES, 2 * IMAGES, 3 * IMAGES]
    assert [state["seconds"] for state in cost.states] == [epoch * STEPS_PER_EPOCH * STEP_S for epoch in (1, 2, 3)]
    assert all(s["energy_mj"] == pytest.approx(40e3 * s["seconds"]) for s in cost.states)


@pytest.mark.usefixtures("metered")
def test_several_processes_may_share_a_counter_so_their_energy_is_not_measured():
    cost = TrainingCost()
    cost.on_train_start(SimpleNamespace(world_size=4), independent())
    assert cost.state_dict()["missing"] == "trained in 4 processes, which may share a counter"


def test_a_counter_that_starts_again_is_read_in_between(monkeypatch):
    reads = []
    monkeypatch.setattr(Counter, "energy_mj", lambda self: reads.append(1) or 0.0)
    monkeypatch.setattr(energy_account, "find_meter", lambda device: Counter())
    monkeypatch.setattr(training_cost, "READ_EVERY_S", 0.0)
    train(TrainingCost(), epochs=1)
    assert len(reads) >= 2 + 9  # nine batches, start and end


# -- a counter that fails ---------------------------------------------------------------------------------------


class Failing(Counter):
    """Breaks at one of its readings."""

    def __init__(self, at):
        self.at, self.reads = at, 0

    def energy_mj(self):
        self.reads += 1
        if self.reads == self.at:
            raise OSError(5, "Input/output error")
        return super().energy_mj()


@pytest.mark.parametrize("at", [1, 2, 5, 11])  # at the start, in between, at a checkpoint, at the end
def test_a_counter_that_fails_costs_the_figure_and_not_the_training(monkeypatch, tmp_path, at):
    meter = Failing(at)
    monkeypatch.setattr(energy_account, "find_meter", lambda device: meter)
    monkeypatch.setattr(training_cost, "READ_EVERY_S", 0.0)
    cost = TrainingCost()
    states = []
    if at == 5:
        cost.on_train_epoch_start = lambda *_: states.append(cost.state_dict())
    train(cost, epochs=1 + (at == 5))
    assert meter.reads == at  # and it is not asked again
    assert (cost.result.train_energy_j, cost.result.train_watts, cost.result.meter) == (None, None, None)
    assert cost.result.reason.endswith("OSError: [Errno 5] Input/output error")
    assert cost.result.train_images == IMAGES * (1 + (at == 5))
    assert cost.result.train_s > 0


@pytest.mark.usefixtures("metered")
def test_a_counter_that_fails_at_a_checkpoint_leaves_a_checkpoint_that_says_so(monkeypatch):
    cost = TrainingCost()
    cost.on_train_start(SimpleNamespace(world_size=1), independent())
    monkeypatch.setattr(Counter, "energy_mj", Failing(1).energy_mj)
    state = cost.state_dict()
    assert state["missing"] == "a counter of 40 W could not be read any more: OSError: [Errno 5] Input/output error"
    resumed = TrainingCost()
    resumed.load_state_dict(state)
    train(resumed, epochs=1)
    assert resumed.result.reason == state["missing"]


def test_a_run_that_shared_its_device_before_it_was_resumed_says_so(monkeypatch):
    monkeypatch.setenv("KDLAB_RUNS_PER_DEVICE", "6")
    state = TrainingCost().state_dict()
    monkeypatch.delenv("KDLAB_RUNS_PER_DEVICE")
    resumed, alone = TrainingCost(), TrainingCost()
    resumed.load_state_dict(state)
    for cost in (resumed, alone):
        train(cost, epochs=1)
    assert (resumed.result.runs_per_device, alone.result.runs_per_device) == (6, 1)


def test_a_machine_that_fails_when_asked_for_its_counter_costs_the_figure_and_not_the_training(monkeypatch):
    def fail(device):
        raise AttributeError("'_CudaDeviceProperties' object has no attribute 'uuid'")

    monkeypatch.setattr(energy_account, "find_meter", fail)
    cost = TrainingCost()
    train(cost, epochs=1)
    assert cost.result.reason == "AttributeError: '_CudaDeviceProperties' object has no attribute 'uuid'"
    assert cost.result.train_images == IMAGES


# -- multiply-adds that are not simply those of both networks -----------------------------------------------------


def cached(tmp_path, name="cache"):
    return CachedTeacher(FrozenTeacher(DigitsConv()), cache_dir=str(tmp_path / name))


@pytest.mark.usefixtures("unmetered")
def test_a_teacher_that_remembers_costs_what_it_is_really_asked(tmp_path):
    torch.manual_seed(0)
    teacher = cached(tmp_path)
    backward = 2 * STUDENT - 64 * 27
    for epochs, share in ((1, 1.0), (4, 0.0)):  # the first run fills the cache, the second finds it complete
        cost = TrainingCost()
        train(cost, LogitMatching(student=DigitsConv(), teacher=teacher), epochs=epochs)
        assert cost.result.per_image.teacher_asked_share == share
        assert cost.result.train_macs_per_epoch == IMAGES * (STUDENT + backward + share * STUDENT)


@pytest.mark.usefixtures("unmetered")
def test_remembered_and_other_teachers_of_an_ensemble_are_charged_on_their_own(tmp_path):
    teachers = TeacherEnsemble([cached(tmp_path), FrozenTeacher(DigitsConv())])
    cost = TrainingCost()
    train(cost, LogitMatching(student=DigitsConv(), teacher=teachers), epochs=4)
    assert cost.result.per_image.teacher_forward_macs == (1 / 4 + 1) * STUDENT


@pytest.mark.usefixtures("unmetered")
def test_what_was_asked_before_a_kill_is_remembered(tmp_path):
    torch.manual_seed(0)
    teacher = cached(tmp_path)
    method = LogitMatching(student=DigitsConv(), teacher=teacher)
    train(TrainingCost(), method, epochs=1).save_checkpoint(tmp_path / "quarter.ckpt")
    cost = TrainingCost()
    train(cost, method, epochs=4, ckpt_path=tmp_path / "quarter.ckpt")
    assert cost.result.per_image.teacher_asked_share == 1 / 4


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in an ensemble"])
@pytest.mark.usefixtures("unmetered")
def test_a_step_that_reaches_a_part_of_the_student_has_an_upper_bound_only(inside):
    def fitnet():
        teacher = FrozenTeacher(DigitsConv())
        return FitNet(teacher, 1, student=DigitsConv(), student_layers=["layer2"], teacher_layers=["layer2"])

    cost = TrainingCost()
    train(cost, SubStudentEnsemble([fitnet(), independent()]) if inside else fitnet())
    assert cost.result.train_macs_per_epoch is None
    assert cost.result.train_macs_per_epoch_at_most == cost.result.per_image.total * IMAGES
    assert cost.result.macs_reason == "an upper bound: not every step of {} goes back through the whole student".format(
        "SubStudentEnsemble" if inside else "FitNet"
    )
    assert "profile/train_macs_per_epoch_at_most" in cost.as_metrics()
    assert "profile/train_macs_per_epoch" not in cost.as_metrics()


@pytest.mark.usefixtures("unmetered")
def test_a_method_with_features_and_labels_reaches_the_whole_student():
    teacher = FrozenTeacher(DigitsConv())
    cost = TrainingCost()
    train(
        cost,
        HintTransfer(teacher, student=DigitsConv(), student_layers=["layer2"], teacher_layers=["layer2"]),
        epochs=1,
    )
    assert cost.result.train_macs_per_epoch == cost.result.per_image.total * IMAGES
    assert (cost.result.train_macs_per_epoch_at_most, cost.result.macs_reason) == (None, None)


@pytest.mark.usefixtures("unmetered")
def test_a_student_with_an_operator_that_nobody_counts_has_a_reason_and_no_figure():
    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.fc = torch.nn.LSTM(8, 16, batch_first=True), torch.nn.Linear(16, 10)

        def forward(self, image):
            return self.fc(self.lstm(image[:, 0])[0][:, -1])

    cost = TrainingCost()
    train(cost, IndependentStudent(student=Recurrent()), epochs=1)
    assert (cost.result.per_image, cost.result.train_macs_per_epoch) == (None, None)
    assert cost.result.macs_reason.startswith("Recurrent: nobody counts aten::lstm (x1), which may multiply and add")


@pytest.mark.usefixtures("unmetered")
def test_a_student_that_cannot_be_counted_costs_the_figure_and_not_the_run(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(training_cost, "training_macs", fail)
    cost = TrainingCost()
    train(cost, epochs=1)
    assert cost.result.train_macs_per_epoch is None
    assert cost.result.macs_reason == "RuntimeError: no such operator"
    assert "profile/train_macs_per_epoch" not in cost.as_metrics()


@pytest.mark.usefixtures("unmetered")
def test_counting_the_cost_leaves_the_training_as_it_is():
    def weights(cost):
        torch.manual_seed(1)
        method = independent()
        train(cost, method)
        return method.state_dict()

    class Nothing(pl.Callback):
        pass

    torch.testing.assert_close(weights(TrainingCost()), weights(Nothing()), rtol=0, atol=0)
