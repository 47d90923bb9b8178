"""Callbacks are called in a step for what they do there, and for nothing else."""

import lightning.pytorch as pl
import pytest
from lightning.pytorch import Callback

from kdlab.cli import main
from kdlab.data import Digits
from kdlab.methods import IndependentStudent
from kdlab.models import DigitsConv
from kdlab.run.idle_hooks import STEP_HOOKS, skip_idle_hooks


class Users(pl.Callback):
    """A user's own, which does nothing in a step; yet."""


class Ours(pl.Callback):
    """One of kdlab's that does nothing in a step."""

    __module__ = "kdlab.run.idle_hooks"


def fit(*callbacks):
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_steps=2, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(IndependentStudent(student=DigitsConv()), Digits(train_per_class=4, batch_size=8))


@pytest.mark.parametrize("where", ["class", "instance"])
@pytest.mark.parametrize("hook", STEP_HOOKS)
def test_only_what_a_callback_of_ours_does_is_called(hook, where):
    heard = []
    if where == "class":
        busy = type("Busy", (Ours,), {hook: lambda *args: heard.append(hook), "__module__": Ours.__module__})()
    else:
        busy = Ours()
        setattr(busy, hook, lambda *args: heard.append(hook))
    skip_idle_hooks([busy])
    assert [name for name in STEP_HOOKS if getattr(busy, name) is not None] == [hook]
    fit(busy)
    assert heard == [hook] * 2


def test_callbacks_of_others_are_left_as_they_are(monkeypatch):
    callback, heard = Users(), []
    skip_idle_hooks([callback])
    monkeypatch.setattr(Users, "on_train_batch_end", lambda *args: heard.append("end"))  # nobody could know
    fit(callback)
    assert heard == ["end"] * 2


def test_a_run_calls_none_of_its_idle_callbacks_in_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr(Callback, "on_after_backward", lambda *args: pytest.fail("an idle hook was called"))
    assert main(["fit", "--config", "digits/independent", "--config", "run/smoke", "--runs_dir", str(tmp_path)]) == 0


@pytest.mark.parametrize("hook", STEP_HOOKS)
def test_the_hooks_of_a_step_are_lightnings(hook):
    assert callable(getattr(pl.Callback, hook))


def test_the_hook_that_runs_is_known_to_lightning_whatever_its_name():
    method = IndependentStudent(student=DigitsConv())
    method._current_fx_name = "training_step"
    assert method._current_fx_name == "training_step"
    assert "student.fc.weight" in dict(method.named_parameters())
    method.student = DigitsConv(widths=(2, 2, 2))  # all else is set as before
    assert dict(method.named_parameters())["student.fc.weight"] is method.student.fc.weight
