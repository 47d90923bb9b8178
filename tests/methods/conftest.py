"""What the tests of methods share: made-up features, and the comparison of a resumed run with an uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from kdlab.types import Batch, Outputs


class Keep(Checkpoint):
    """Writes a checkpoint after some optimizer steps and at the end of every epoch, as a resume point does."""

    def __init__(self, folder, steps):
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step in self.steps and not (self.folder / f"step{trainer.global_step}.ckpt").exists():
            trainer.save_checkpoint(self.folder / f"step{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"epoch{trainer.current_epoch}.ckpt")


class NoCheckpoint(Checkpoint):
    """Keeps Lightning from adding a ModelCheckpoint."""


class Rows(Logger):
    """Keeps what is logged."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_, **__):
        pass


@pytest.fixture
def resumes_exactly(fit, tmp_path):
    """`resumes_exactly(make, steps)`: a run continued after each of these steps, and after each epoch, ends alike."""

    def run(make, **arguments):
        torch.manual_seed(1)
        method, log = make(), Rows()
        trainer = fit(method, logger=log, enable_checkpointing=True, log_every_n_steps=100, **arguments)
        optimizer = trainer.optimizers[0].state_dict()["state"]
        return plain([method.state_dict(), optimizer]), log.rows

    def check(make, steps, **arguments):
        callbacks = arguments.pop("callbacks", [])
        whole, rows = run(make, callbacks=[*callbacks, Keep(tmp_path, steps)], **arguments)
        checkpoints = sorted(tmp_path.glob("*.ckpt"))
        assert len(checkpoints) == len(steps) + arguments.get("max_epochs", 2)
        for checkpoint in checkpoints:
            torch.rand(3)  # another state of the global generator than that of the uninterrupted run
            again, later = run(make, callbacks=[*callbacks, NoCheckpoint()], ckpt_path=checkpoint, **arguments)
            assert again == whole, checkpoint.name
            assert later == rows[len(rows) - len(later) :], checkpoint.name
            assert later or checkpoint == checkpoints[-1 - len(steps)]
        return whole

    return check


def plain(state):
    """Tensors as bytes, so that == compares bits."""
    if isinstance(state, torch.Tensor):
        return state.detach().numpy().tobytes()
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, list) else state


@pytest.fixture
def bits():
    """A state dict, or tensors in lists, as something whose == compares bits."""
    return lambda state: plain(dict(state) if hasattr(state, "items") else state)


class MadeUp:
    """Float64 logits and features of four samples, and the records that a method's hook reads, in float32."""

    def __init__(self):
        rng = np.random.default_rng(7)
        self.student, self.teacher = rng.normal(size=(4, 3)), 3 * rng.normal(size=(4, 3))
        self.label = np.array([0, 2, 1, 2])
        self.maps = rng.normal(size=(2, 4, 5, 3, 2))  # student and teacher, [B, C, H, W]
        self.rows = [rng.normal(size=(4, 6)), rng.normal(size=(4, 3))]  # [B, D] of either

    def hook(self, method, student=(), teacher=(), dtype=torch.float32):
        """The terms of `method` for these logits and these features, by layer."""
        sides = []
        for logits, features in ((self.student, student), (self.teacher, teacher)):
            tensors = {name: torch.tensor(feature, dtype=dtype) for name, feature in dict(features).items()}
            sides.append(Outputs(torch.tensor(logits, dtype=dtype), tensors))
        index = torch.arange(len(self.label))
        batch = Batch(torch.zeros(len(index), 1, 8, 8), torch.tensor(self.label), index, torch.zeros_like(index))
        return {name: term.item() for name, term in method.losses(*sides, batch).items()}

    @property
    def cross_entropy(self):
        return -np.log(softmax(self.student)[np.arange(len(self.label)), self.label]).mean()

    def divergence(self, temperature):
        """T^2 KL(teacher || student), mean over the samples."""
        p, q = softmax(self.teacher / temperature), softmax(self.student / temperature)
        return temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()


def softmax(logits):
    e = np.exp(logits)
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture
def made_up():
    return MadeUp()
