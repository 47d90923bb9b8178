"""A loss that is no number, as a user meets it: one line, exit code 5, the images in a file, the last good point kept."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from kdlab.cli import main
from kdlab.methods import IndependentStudent
from kdlab.run.checkpoints import AtomicCheckpointIO
from kdlab.run.folder import RunFolder
from kdlab.types import Batch, Outputs

ARGUMENTS = ["fit", "--config", "digits/independent", "--trainer.max_epochs", "2", "--name", "run",
             "--data.train_per_class", "20", "--data.batch_size", "20", "--trainer.callbacks+=ResumePoint",
             "--trainer.callbacks.every_n_steps", "3"]  # fmt: skip
Losses = Callable[[IndependentStudent, Outputs, Outputs | None, Batch], dict[str, Tensor]]


class Poison(torch.autograd.Function):
    """The identity, whose gradient is no number."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def faulty(losses: Losses, place: str, step: int) -> Losses:
    """The losses of a method, with a number that is none at one step."""

    def faulty_losses(
        self: IndependentStudent, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> dict[str, Tensor]:
        now = self.global_step == step
        if now and place == "gradient":
            student = student._replace(logits=Poison.apply(student.logits))
        terms = losses(self, student, teacher, batch)
        return terms | {"extra": terms["label"] * (math.nan if now and place == "loss" else 1.0)}

    return faulty_losses


@pytest.mark.parametrize(("place", "step", "found", "steps"), [
    ("loss", 7, "extra_loss is nan at step 7 (epoch 0)", {6, 7}),
    ("gradient", 7, "is not finite at step 7, although its losses are", {7, 8}),
    ("gradient", 19, "is not finite after step 19, although its losses are", {18, 19}),  # the last of the run
])  # fmt: skip
def test_the_step_is_named_its_images_are_kept_and_the_last_good_point_goes_on(
    place: str, step: int, found: str, steps: set[int], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tally: Callable[[str, int], None],
) -> None:  # fmt: skip
    losses, arguments = IndependentStudent.losses, [*ARGUMENTS, "--runs_dir", str(tmp_path)]
    monkeypatch.setattr(IndependentStudent, "losses", faulty(losses, place, step))
    assert main(arguments) == 5
    folder = RunFolder(tmp_path / "digits" / "run")
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kdlab: error: ")]
    file = folder.path / "bad_batch.safetensors"
    assert found in error
    assert str(file) in error

    images = load_file(file)
    assert set(images) == {"image", "label", "index", "view", "step"}
    assert set(images["step"].tolist()) == steps
    assert images["image"].shape == (40, 1, 8, 8)
    assert all(len(tensor) == 40 for tensor in images.values())
    with safe_open(file, framework="pt") as opened:
        assert found in json.loads(opened.metadata()["kdlab"])["error"]

    point = AtomicCheckpointIO().load_checkpoint(folder.last)
    assert point["global_step"] <= step
    assert all(value.isfinite().all() for value in point["state_dict"].values())
    assert not folder.student.exists()
    monkeypatch.setattr(IndependentStudent, "losses", faulty(losses, "nowhere", step))  # the cause has been mended
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    tally("loss or gradient not finite: exit code 5, step and term named, images kept, resumed", 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("CUDA error: out of order"), "CUDA error: out of order"),
    ],
)
def test_a_batch_that_cannot_be_kept_does_not_hide_the_loss(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(IndependentStudent, "losses", faulty(IndependentStudent.losses, "loss", 7))
    monkeypatch.setattr("kdlab.run.bad_batch.write_batches", full)
    assert main([*ARGUMENTS, "--runs_dir", str(tmp_path)]) == 5
    said = capsys.readouterr().err
    assert f"bad_batch.safetensors cannot be written ({reason})" in said
    assert "extra_loss is nan at step 7" in said.splitlines()[-1]
