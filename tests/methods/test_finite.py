"""A number that is none stops the run at its step, and the error says where it comes from and holds the images."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlab.data import Digits
from kdlab.methods import IndependentStudent, LogitMatching, Method
from kdlab.methods.finite import UNREAD, LossWatch, NotFiniteError
from kdlab.models import DigitsConv
from kdlab.teachers import EMATeacher, FrozenTeacher
from kdlab.types import Batch

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals


class Poison(torch.autograd.Function):
    """The identity, whose gradient is no number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


class Faulty(IndependentStudent):
    """A student into whose step `step` something that is no number is put."""

    step, place = 4, "term"

    def losses(self, student, teacher, batch):
        now, logits = self.global_step == self.step, student.logits
        if now and self.place == "gradient":
            logits = Poison.apply(logits)
        label = F.cross_entropy(logits, batch.label)
        return {"label": label, "extra": label * (math.inf if now and self.place == "term" else 0.5)}

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        if self.global_step == self.step and self.place == "image":
            batch.image[3] = math.nan
        if self.global_step == self.step and self.place == "weight":
            self.student.fc.bias.data[0] = math.inf


def stopped(fit, method, **options):
    with pytest.raises(NotFiniteError) as caught:
        fit(method, **options)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    return caught.value


def faulty(place, student=None):
    method = Faulty(student=student or DigitsConv())
    method.place = place
    return method


def steps_of(error):
    return [seen.step for seen in error.seen]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_of_several_terms_the_bad_one_is_named(fit, precision):
    method = faulty("term")
    error = stopped(fit, method, precision=precision)
    assert str(error).startswith("extra_loss is inf at step 4 (epoch 0); lower the learning rate")
    assert "label_loss" not in str(error)
    assert steps_of(error) == [3, 4]
    assert all(p.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_gradient_alone_is_found_before_the_next_step_and_named(fit, precision):
    error = stopped(fit, faulty("gradient"), precision=precision)
    first_weight = next(iter(dict(DigitsConv().named_parameters())))
    assert str(error).startswith(
        f"label_loss is nan (and extra_loss too) at step 5 (epoch 0): the gradient of student.{first_weight} is not "
        "finite at step 4, although its losses are"
    )
    assert steps_of(error) == [4, 5]


def test_with_accumulated_gradients_all_batches_of_the_step_are_kept(fit):
    method = faulty("gradient")
    method.step = 2
    error = stopped(fit, method, accumulate_grad_batches=3)  # nine batches: three steps
    assert "is not finite after step 2, although its losses are; lower" in str(error)  # the validation found it
    assert steps_of(error) == [1, 1, 1, 2, 2, 2]
    assert len({int(seen.batch.index[0]) for seen in error.seen}) == 6


def test_the_last_step_of_a_run_is_found_when_it_is_saved(fit, tmp_path):
    method = faulty("gradient")
    method.step = 17  # of 18: no loss comes after it

    def save(trainer):
        trainer.save_checkpoint(tmp_path / "never.ckpt")

    method.on_train_end = lambda: save(method.trainer)
    error = stopped(fit, method)
    assert "is not finite after step 17, although its losses are; lower" in str(error)
    assert not (tmp_path / "never.ckpt").exists()


def test_an_optimizer_that_has_broken_alone_is_found_when_it_is_saved(fit, tmp_path):
    def optimizer(parameters):
        return torch.optim.Adam(parameters, lr=1e-3)

    def overflow():  # as the square of a gradient of 1e20 does, which leaves the weights where they are, for ever
        state = method.trainer.optimizers[0].state
        state[method.student.fc.bias]["exp_avg_sq"][0] = math.inf
        method.trainer.save_checkpoint(tmp_path / "never.ckpt")

    method = IndependentStudent(student=DigitsConv(), optimizer=optimizer)
    method.on_train_end = overflow
    error = stopped(fit, method)
    number = [name for name, _ in method.student.named_parameters()].index("fc.bias")
    assert f"exp_avg_sq of parameter {number} in the optimizer is not finite after step 17; lower" in str(error)
    assert not (tmp_path / "never.ckpt").exists()


def test_an_image_is_named_by_its_place_in_the_split(fit):
    error = stopped(fit, faulty("image"))
    index = int(error.seen[-1].batch.index[3])
    assert f"at step 4 (epoch 0): image {index} of the training split in its view 0 is not finite" in str(error)
    assert "learning rate" not in str(error)
    assert error.seen[-1].batch.image[3].isnan().all()


def test_a_weight_that_jumps_is_named_without_blaming_the_gradient(fit):
    error = stopped(fit, faulty("weight"))
    assert "student.fc.bias is not finite after step 3, although its losses and gradients are" in str(error)


class Overflowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, image):
        return self.fc(image.flatten(1)) * math.inf


def test_an_answer_that_overflows_is_told_from_its_weights(fit):
    error = stopped(fit, faulty("none", Overflowing()))
    assert "at step 0 (epoch 0): the student's answer is not finite, although its weights are" in str(error)


def test_the_teacher_is_blamed_for_its_own_numbers(fit):
    teacher = FrozenTeacher(DigitsConv())
    teacher.network.fc.bias.data[3] = math.nan
    error = stopped(fit, LogitMatching(student=DigitsConv(), teacher=teacher))
    assert str(error).startswith("logit_loss is nan at step 0 (epoch 0): the teacher's answer is not finite")


def test_after_a_run_no_batch_is_kept(fit):
    method = IndependentStudent(student=DigitsConv())
    fit(method)
    assert not method._watch._seen


# -- as on a GPU, whose losses arrive later ---------------------------------------------------------------------


class Copy:
    """Stands for the event of a copy to the host."""

    def __init__(self, arrived):
        self.arrived, self.waited = arrived, False

    def query(self):
        return self.arrived

    def synchronize(self):
        self.arrived = self.waited = True


@pytest.fixture
def digits():
    data = Digits(batch_size=4)
    data.prepare_data()
    data.setup("fit")
    return data.plain_view(next(iter(data.train_dataloader())))


def add(watch, batch, step, value, arrived):
    watch.add(step, 0, batch, {"label_loss": torch.tensor(value)})
    copy = Copy(arrived)
    watch._unread[-1] = watch._unread[-1]._replace(copied=copy)
    return copy


def test_losses_that_have_not_arrived_are_not_waited_for_until_there_are_too_many(digits):
    watch, method = LossWatch(), IndependentStudent(student=DigitsConv())
    copies = [add(watch, digits, step, 1.0, arrived=False) for step in range(UNREAD)]
    assert watch.look(method, wait=False) == {}
    assert not any(copy.waited for copy in copies)
    copies.append(add(watch, digits, UNREAD, 2.0, arrived=False))
    watch.look(method, wait=False)
    assert [copy.waited for copy in copies] == [True] + [False] * UNREAD
    assert watch.look(method, wait=True) == {"label_loss": 2.0}  # as before a checkpoint
    assert all(copy.waited for copy in copies)
    assert len(watch._seen) == 2


@pytest.mark.parametrize("damage", ["none", "image", "teacher"])
def test_the_step_is_named_although_others_have_been_taken_since(digits: Batch, damage):
    watch, teacher = LossWatch(), FrozenTeacher(DigitsConv())
    method: Method = LogitMatching(student=DigitsConv(), teacher=teacher)
    bad = digits._replace(image=digits.image.clone())
    if damage == "image":
        bad.image[1, 0, 2, 2] = math.inf
    if damage == "teacher":
        teacher.network.fc.bias.data[0] = math.nan
    for step, value in enumerate([1.0, 1.0, math.nan, math.nan, math.nan]):
        add(watch, bad if step == 2 else digits, step, value, arrived=step < 4)
    with pytest.raises(NotFiniteError, match=r"^label_loss is nan at step 2 \(epoch 0\)") as caught:
        watch.look(method, wait=False)
    expected = {"none": "lower the learning", "image": f"image {digits.index[1]} of", "teacher": "the teacher's answer"}
    assert expected[damage] in str(caught.value)
    assert steps_of(caught.value) == [1, 2]
    assert caught.value.seen[-1].batch is bad


def test_a_teacher_that_learns_is_not_asked_again(digits):
    watch, teacher = LossWatch(), EMATeacher(decay=0.9)
    method = LogitMatching(student=DigitsConv(), teacher=teacher)
    method.teacher.start(DigitsConv())
    for parameter in method.teacher.parameters():
        parameter.data.fill_(math.nan)  # by now
    add(watch, digits, 0, math.nan, arrived=True)
    with pytest.raises(NotFiniteError, match="lower the learning rate"):
        watch.look(method, wait=False)
