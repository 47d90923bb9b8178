"""Callbacks are called in a step for what they do there, and for nothing else."""

import lightning.pytorch as pl
import pytest

from kdlab.data import Digits
from kdlab.methods import IndependentStudent
from kdlab.models import DigitsConv
from kdlab.run.idle_hooks import STEP_HOOKS, skip_idle_hooks


class Counting(pl.Callback):
    """Has something to do before and in one instant of a step."""

    def __init__(self):
        self.heard = []

    def on_train_start(self, *args):
        self.heard.append("start")

    def on_after_backward(self, *args):
        self.heard.append("backward")


class Idle(pl.Callback):
    """Does nothing in a step."""


def test_only_what_a_callback_does_is_called():
    counting, idle = Counting(), Idle()
    by_instance = Idle()
    by_instance.on_train_batch_end = lambda *args: counting.heard.append("end")
    skip_idle_hooks([counting, idle, by_instance])
    assert [getattr(idle, hook) for hook in STEP_HOOKS] == [None] * len(STEP_HOOKS)
    assert [hook for hook in STEP_HOOKS if getattr(counting, hook) is not None] == ["on_after_backward"]
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_steps=2, callbacks=[counting, idle, by_instance], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(IndependentStudent(student=DigitsConv()), Digits(train_per_class=4, batch_size=8))
    assert counting.heard == ["start", "backward", "end", "backward", "end"]


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
