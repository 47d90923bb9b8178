"""Trainings that end when something is spent."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from kdlab.cli import main
from kdlab.data import Digits
from kdlab.errors import UsageError
from kdlab.methods import IndependentStudent, LogitMatching
from kdlab.models import DigitsConv
from kdlab.profiling import Budget, NotMeasured, TrainingCost, energy_account
from kdlab.teachers import CachedTeacher, FrozenTeacher

FORWARD = 64 * 27 + 16 * 162 + 4 * 324 + 60  # multiply-adds of DigitsConv
STEP = 20 * (
    FORWARD + 2 * FORWARD - 64 * 27
)  # of 20 images, forward and backward; nobody asks for the gradient of pixels
STEPS_PER_EPOCH = 9  # 180 images
WIDE_FORWARD = 64 * 8 * 9 + 16 * 8 * 16 * 9 + 4 * 16 * 16 * 9 + 16 * 10  # of `wide`


def wide():
    torch.manual_seed(0)
    return DigitsConv(widths=(8, 16, 16))


def train(budget, method=None, epochs=10, cost=None, ckpt_path=None, **options):
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, callbacks=[budget, cost or TrainingCost()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False, **options,
    )  # fmt: skip
    trainer.fit(
        method or IndependentStudent(student=DigitsConv()), Digits(train_per_class=18, batch_size=20),
        ckpt_path=ckpt_path, weights_only=True if ckpt_path else None,
    )  # fmt: skip
    return trainer


@pytest.mark.parametrize("steps", [1, 4, STEPS_PER_EPOCH, 14])
def test_multiply_adds_end_it_with_the_step_that_spends_the_last(steps):
    budget = Budget("macs", amount=(steps - 0.5) * STEP)
    trainer = train(budget)
    assert trainer.global_step == steps
    assert budget.result.spent == steps * STEP
    assert budget.result.used_up
    assert budget.result.epochs == pytest.approx(steps / STEPS_PER_EPOCH)


@pytest.mark.parametrize("batches", [2, 4])
def test_steps_of_several_batches_are_counted_with_the_last_smaller_one(batches):
    budget = Budget("macs", amount=1e12)
    train(budget, epochs=4, accumulate_grad_batches=batches)
    assert budget.result.epochs == 4
    assert budget.result.spent == 4 * STEPS_PER_EPOCH * STEP


def test_the_teachers_share_is_spent_too():
    alone, distilled = Budget("macs", amount=20 * STEP), Budget("macs", amount=20 * STEP)
    matching = LogitMatching(FrozenTeacher(DigitsConv()), student=DigitsConv())
    assert train(alone).global_step == 20
    share = STEP / (STEP + 20 * FORWARD)
    assert train(distilled, matching).global_step == pytest.approx(20 * share, abs=1)


def test_a_remembered_teacher_is_charged_with_what_it_computes(tmp_path):
    def matching():
        teacher = CachedTeacher(FrozenTeacher(wide()), str(tmp_path))
        return LogitMatching(teacher, student=DigitsConv())

    train(Budget("macs", amount=1e12), matching(), epochs=1)  # fills the memory
    budget = Budget("macs", amount=11.5 * STEP)
    assert train(budget, matching()).global_step == 12  # as a student on its own: not one answer is computed
    assert budget.result.spent == 12 * STEP


def test_a_teacher_is_charged_while_its_memory_is_filled(tmp_path):
    budget = Budget("macs", amount=1e12)
    train(budget, LogitMatching(CachedTeacher(FrozenTeacher(wide()), str(tmp_path)), student=DigitsConv()), epochs=2)
    answers = 20 * STEPS_PER_EPOCH * WIDE_FORWARD  # of the first epoch; there is one view of each image
    assert budget.result.spent == 2 * STEPS_PER_EPOCH * STEP + answers


def test_what_is_left_of_a_budget_is_known_after_a_resume_in_mid_epoch(tmp_path):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step == 4
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    def run(budget, ckpt_path=None, *callbacks):
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=3, callbacks=[budget, TrainingCost(), *callbacks], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            use_distributed_sampler=False, limit_val_batches=0,
        )  # fmt: skip
        data = Digits(train_per_class=18, batch_size=20)
        method = IndependentStudent(student=DigitsConv())
        trainer.fit(method, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return trainer

    assert run(Budget("macs", amount=1e12), None, Stop()).global_step == 4
    budget = Budget("macs", amount=6.5 * STEP)
    assert run(budget, tmp_path / "last.ckpt").global_step == 7
    assert budget.result.spent == 7 * STEP


@pytest.mark.parametrize("steps", [4, 30 * STEPS_PER_EPOCH], ids=["used up", "never used up"])
def test_a_run_that_had_ended_takes_no_step_more_and_reports_the_same(steps, tmp_path):
    amount = (steps - 0.5) * STEP
    first, second = Budget("macs", amount=amount), Budget("macs", amount=amount)
    ended = train(first, epochs=2)
    ended.save_checkpoint(tmp_path / "ended.ckpt")
    again = train(second, epochs=2, ckpt_path=tmp_path / "ended.ckpt")
    assert again.global_step == ended.global_step
    assert second.result == first.result


def test_a_budget_that_is_raised_goes_on(tmp_path):
    train(Budget("macs", amount=3.5 * STEP)).save_checkpoint(tmp_path / "ended.ckpt")
    budget = Budget("macs", amount=5.5 * STEP)
    assert train(budget, ckpt_path=tmp_path / "ended.ckpt").global_step == 6
    assert budget.result.used_up


def test_processes_agree_that_a_budget_is_used_up_in_epochs_of_few_steps(tmp_path, two_ranks):
    assert two_ranks(_rank_with_a_budget, tmp_path) == [0, 0]
    # five steps of an epoch; asked after each eighth step
    assert {(tmp_path / f"{rank}").read_text() for rank in (0, 1)} == {"16"}


def _rank_with_a_budget(folder):
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=10, logger=False, enable_checkpointing=False,
        callbacks=[Budget("macs", amount=20.5 * STEP), TrainingCost()], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(IndependentStudent(student=DigitsConv()), Digits(train_per_class=18, batch_size=20))
    (folder / f"{trainer.global_rank}").write_text(str(trainer.global_step))


def test_seconds_end_it_and_a_schedule_that_fits_is_named(caplog):
    class Slow(pl.Callback):
        def on_train_batch_start(self, *args):
            time.sleep(0.05)

    budget = Budget("seconds", amount=0.6)
    with caplog.at_level(logging.WARNING):
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=50, callbacks=[Slow(), TrainingCost(), budget], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(IndependentStudent(student=DigitsConv()), Digits(train_per_class=18, batch_size=20))
    assert 1 <= trainer.global_step <= 12
    assert budget.result.spent >= 0.6
    assert "set max_epochs to" in caplog.text


def test_joules_are_read_from_the_counter(monkeypatch):
    class Counter:
        name = "a counter"
        read = 0

        def energy_mj(self):
            Counter.read += 1
            return 5e3 * Counter.read  # 5 J from look to look

    monkeypatch.setattr(energy_account, "find_meter", lambda device: Counter())
    monkeypatch.setattr("kdlab.profiling.budget.JOULES_EVERY_S", -1.0)
    budget = Budget("joules", amount=30)
    assert train(budget).global_step == 6
    assert budget.result.used_up


def test_a_budget_that_is_not_used_up_is_said(caplog):
    budget = Budget("macs", amount=100 * STEP)
    with caplog.at_level(logging.WARNING):
        train(budget, epochs=1)
    assert not budget.result.used_up
    assert "raise max_epochs for a comparison at equal cost" in caplog.text


def test_what_cannot_be_measured_cannot_be_budgeted(monkeypatch):
    monkeypatch.setattr(energy_account, "find_meter", lambda device: NotMeasured("no counter"))
    with pytest.raises(UsageError, match=r"energy is not measured \(no counter\); choose seconds or macs"):
        train(Budget("joules", amount=1))
    monkeypatch.setattr(TrainingCost, "macs_per_image", lambda *_: NotMeasured("an LSTM"))
    with pytest.raises(UsageError, match=r"they are not measured \(an LSTM\); choose seconds"):
        train(Budget("macs", amount=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "amount is None, like is None"),
        ({"amount": 1, "like": "runs/x"}, "amount is 1, like is runs/x"),
        ({"amount": 0}, "the budget is 0 macs, but it must be a positive number"),
        ({"amount": float("nan")}, "the budget is nan macs"),
        ({"like": "nowhere"}, "nowhere is no finished run; name the folder of one"),
        ({"like": "unprofiled"}, "unprofiled was run with --profile false and did not measure its training"),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("unprofiled").mkdir()
    Path("unprofiled", "result.json").write_text("{}")
    with pytest.raises(UsageError, match=message):
        Budget("macs", **arguments)


def test_a_run_without_an_account_is_refused():
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, callbacks=[Budget("seconds", amount=1)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(UsageError, match="leave --profile on"):
        trainer.fit(IndependentStudent(student=DigitsConv()), Digits(train_per_class=18, batch_size=20))


def test_an_independent_student_spends_what_a_distilled_one_did(tmp_path):
    few = ["--data.train_per_class", "18", "--data.batch_size", "20", "--runs_dir", str(tmp_path), "--profile", "true"]
    quick = ["--trainer.callbacks+=LatencyProfiler", "--trainer.callbacks.seconds", "0.01"]
    student = ["--model.student", "DigitsConv"]
    teacher = ["--model.teacher", "FrozenTeacher", "--model.teacher.network", "DigitsConv",
               "--model.teacher.network.widths", "[3,6,6]", "--model.teacher.checkpoint", "null",
               "--model.teacher.recipe", "null"]  # fmt: skip
    kd = ["fit", "--config", "digits/logit_matching", *few, *quick, *student, *teacher, "--trainer.max_epochs", "2"]
    assert main(kd) == 0
    done = tmp_path / "digits" / "logit_matching-seed0"
    budget = [
        "--trainer.callbacks+=Budget",
        "--trainer.callbacks.resource",
        "macs",
        "--trainer.callbacks.like",
        str(done),
    ]
    alone = ["fit", "--config", "digits/independent", *few, *quick, *student, *budget, "--trainer.max_epochs", "20"]
    assert main(alone) == 0
    one, other = (json.loads((tmp_path / "digits" / name / "result.json").read_text())
                  for name in ("logit_matching-seed0", "independent-seed0"))  # fmt: skip
    spent = 2 * one["training_cost"]["train_macs_per_epoch"]
    assert other["budget"]["amount"] == pytest.approx(spent)
    assert spent <= other["budget"]["spent"] <= spent + 20 * 3 * FORWARD
    assert other["budget"]["used_up"]
    assert other["training_cost"]["train_images"] > one["training_cost"]["train_images"]
