"""The mean teacher against its formula in float64, step by step."""

import copy

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.methods import LogitMatching
from kdlab.models import DigitsConv
from kdlab.teachers import EMATeacher

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals


def following(student, decay=0.9):
    teacher = EMATeacher(decay)
    teacher.start(student)
    return teacher


@torch.no_grad()
def set_to(student, value):
    for tensor in student.state_dict().values():
        tensor.fill_(value)


def expected_averages(values, decay, start):
    """The formula, by hand: w <- d_n w + (1 - d_n) v with d_n = min(d, 1 - 1 / (n + 1))."""
    average, averages = start, []
    for n, value in enumerate(values, start=1):
        keep = min(decay, 1 - 1 / (n + 1))
        average = keep * average + (1 - keep) * value
        averages.append(average)
    return averages


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_average_follows_the_formula_in_weights_and_batch_norm_statistics(decay):
    student = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    set_to(student, 8.0)
    teacher = following(student, decay)
    values = [1.0, -2.0, 4.0, 0.5, 3.0, 16.0]
    for value, expected in zip(values, expected_averages(values, decay, 8.0), strict=True):
        set_to(student, value)
        teacher.update(student)
        for name, tensor in teacher.network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                assert tensor.item() == int(value)  # a counter is no average
            else:
                np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6, err_msg=name)


def test_the_first_steps_average_evenly():
    student = nn.Linear(1, 1)
    set_to(student, 0.0)
    teacher = following(student, 0.999)
    for value in (3.0, 6.0, 9.0):
        set_to(student, value)
        teacher.update(student)
    assert teacher.network.bias.item() == pytest.approx((0 + 3 + 6 + 9) / 4, rel=1e-6)


def test_it_begins_as_a_copy_that_shares_nothing_and_starts_once():
    student = DigitsConv()
    teacher = EMATeacher()
    assert not teacher.ready
    teacher.start(student)
    assert teacher.ready
    network = teacher.network
    assert all(a.equal(b) for a, b in zip(network.state_dict().values(), student.state_dict().values(), strict=True))
    pointers = {tensor.data_ptr() for tensor in student.state_dict().values()}
    assert not pointers & {tensor.data_ptr() for tensor in network.state_dict().values()}
    teacher.start(DigitsConv())
    assert teacher.network is network


def test_it_answers_in_eval_mode_without_gradients(sixty_four):
    student = DigitsConv().train()
    teacher = following(student)
    teacher.train()
    assert student.training
    assert not any(part.training for part in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    before = copy.deepcopy(teacher.network.state_dict())
    logits = teacher(sixty_four).logits
    assert not logits.requires_grad
    assert logits.equal(copy.deepcopy(student).eval()(sixty_four.image))
    assert all(tensor.equal(before[name]) for name, tensor in teacher.network.state_dict().items())


def method(decay=0.9, seed=0):
    def optimizer(parameters):
        return torch.optim.Adam(parameters, lr=0.01)

    torch.manual_seed(seed)
    return LogitMatching(EMATeacher(decay), student=DigitsConv(), optimizer=optimizer)


class Recomputed(pl.Callback):
    """Follows the formula in float64 from the student's weights after each optimizer step."""

    def __init__(self):
        self.average, self.steps, self.held = None, 0, None

    def on_train_start(self, trainer, pl_module):
        self.average = self.values(pl_module.student)
        held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
        self.held = held & {id(p) for p in pl_module.teacher.parameters()}

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.steps:
            return  # gradients are still being accumulated
        self.steps += 1
        keep = min(pl_module.teacher.decay, self.steps / (self.steps + 1))
        new = self.values(pl_module.student)
        self.average = {name: keep * old + (1 - keep) * new[name] for name, old in self.average.items()}

    def values(self, network):
        return {n: t.double().clone() for n, t in network.state_dict().items() if t.is_floating_point()}


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 18), (2, 10), (4, 6)])
def test_it_counts_optimizer_steps_not_batches(fit, accumulate, steps):
    system, formula = method(), Recomputed()
    fit(system, callbacks=[formula], accumulate_grad_batches=accumulate)  # two epochs of nine batches
    assert system.teacher.steps == formula.steps == steps
    assert not formula.held  # nothing of it is in the optimizer
    for name, expected in formula.average.items():
        actual = system.teacher.network.state_dict()[name].double()
        assert actual.allclose(expected, rtol=1e-4, atol=1e-6), name  # float32 over 18 steps


def test_it_is_saved_and_resumed_exactly(fit, tmp_path):
    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step in (4, 13):
                trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    whole = method()
    fit(whole, callbacks=[Keep()])
    for step in (4, 13):
        saved = torch.load(tmp_path / f"{step}.ckpt", weights_only=True)["state_dict"]
        assert saved["teacher._extra_state"] == {"steps": step}
        resumed = method(seed=7)
        fit(resumed, ckpt_path=tmp_path / f"{step}.ckpt")
        assert resumed.teacher.steps == 18
        for part in ("student", "teacher"):
            one, other = getattr(whole, part).state_dict(), getattr(resumed, part).state_dict()
            assert all(one[name].equal(other[name]) for name in one if isinstance(one[name], torch.Tensor))


def test_its_own_test_metrics_stand_beside_the_students(fit):
    system = method()
    trainer = fit(system)
    (metrics,) = trainer.test(system, datamodule=trainer.datamodule, verbose=False)
    assert {"test/accuracy", "teacher/test_accuracy"} <= set(metrics)


def test_a_student_may_be_tested_alone_where_there_is_no_average_yet(fit):
    system = method()
    trainer = fit(method(), max_epochs=0)
    (metrics,) = trainer.test(system, datamodule=trainer.datamodule, verbose=False)
    assert not [name for name in metrics if name.startswith("teacher/")]


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0, float("nan")])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(UsageError, match=r"decay is .*choose 0 <= decay < 1"):
        EMATeacher(decay)
