"""Resume points and best students on disk: whole, verified, and written without ever losing the one before."""

import hashlib
import io
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from kdlab.atomic import atomic_write, write_text
from kdlab.errors import IntegrityError, NumericalError
from kdlab.run.folder import RunFolder
from kdlab.run.resume_check import check_resume_point
from kdlab.tensor_files import load_pickled
from kdlab.weights import save_weights

DIGESTS = "digests.txt"  # SHA-256 of every checkpoint in the folder, and of the one that is about to come


class AtomicCheckpointIO(CheckpointIO):
    """Write checkpoints atomically, keep the one before, verify on reading, and never run what a file contains.

    ``last.ckpt`` is replaced in one rename; the version before it stays as ``last-previous.ckpt``. Before the
    rename the digest of the new file is added to ``digests.txt``, so whatever instant the process dies at,
    every checkpoint in place has its digest there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Write `checkpoint` to `path`.

        Raises:
            IntegrityError: if it cannot be written; the checkpoints that were there stay whole.
        """
        path = Path(path)
        buffer = io.BytesIO()  # first into memory: torch.save hides a full disk behind an error of its own
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        try:
            with atomic_write(path) as part:
                part.write_bytes(content)
                _remember(hashlib.sha256(content).hexdigest(), path)
                if path.exists():
                    _link(path, previous(path))
        except OSError as error:
            raise IntegrityError(
                f"the checkpoint {path} cannot be written ({error.strerror}); the one before it is whole. "
                "Free some space and continue with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = lambda storage, location: storage,  # noqa: ANN401
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`, or the one before it when that one is damaged.

        Raises:
            IntegrityError: if neither can be read.
        """
        path = Path(path)
        try:
            return _read(path, map_location)
        except IntegrityError as error:
            if not previous(path).exists():
                raise
            checkpoint = _read(previous(path), map_location)
            rank_zero_warn(f"kdlab: {error}. Continuing from the one before it, {previous(path)}")
            return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the checkpoint at `path`."""
        Path(path).unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Where the version before `path` is kept."""
    return path.with_stem(f"{path.stem}-previous")


def _read(path: Path, map_location: Any) -> dict[str, Any]:  # noqa: ANN401
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"checkpoint {path} cannot be read ({error.strerror})") from error
    digests = path.parent / DIGESTS
    if digests.exists() and hashlib.sha256(content).hexdigest() not in digests.read_text(encoding="utf-8").split():
        raise IntegrityError(f"checkpoint {path} is damaged: its SHA-256 is not the one that was written")
    advice = "; it was not opened"
    checkpoint = load_pickled(io.BytesIO(content), f"checkpoint {path}", "checkpoint", advice, map_location)
    return check_resume_point(checkpoint, path)


def _remember(digest: str, path: Path) -> None:
    """Add the digest of what comes to `path`, and forget those of files that are gone.

    What is at `path` now, and what was there before it, is hashed rather than looked up, so that any number of
    deaths in mid-save leaves neither too many lines nor too few.
    """
    listed = path.parent / DIGESTS
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    kept = [(old, name) for old, name in lines if name != path.name and (path.parent / name).exists()]
    kept = [(old, name) for old, name in kept if name != previous(path).name]
    for file in (path, previous(path)):
        if file.exists():
            current = hashlib.sha256(file.read_bytes()).hexdigest()
            # a file that is damaged now must not become right by being hashed
            if [current, path.name] in lines or [current, previous(path).name] in lines:
                kept.append((current, file.name))
    write_text(listed, "".join(f"{value} {name}\n" for value, name in [*kept, (digest, path.name)]))


def _link(source: Path, target: Path) -> None:
    """Give the file at `source` a second name, replacing what had that name."""
    if target.exists() and target.samefile(source):  # as after a save that failed; a rename would leave `part` there
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, part)
    part.replace(target)


class ResumePoint(Checkpoint):
    """Write ``checkpoints/last.ckpt`` at the end of each epoch, and every few steps if asked.

    It is not the best model and nothing monitors it. At the last batch of an epoch nothing is written before
    validation and the epoch's end are done, so a resume is either in mid-epoch or between two epochs.

    Args:
        every_n_steps: also write after every so many optimizer steps; 0 writes at epoch ends only.
    """

    def __init__(self, every_n_steps: int = 0) -> None:
        self.every_n_steps = every_n_steps
        self.folder: RunFolder | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Write in mid-epoch, after a step that is due."""
        epoch_goes_on = batch_idx + 1 < trainer.num_training_batches
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.every_n_steps and epoch_goes_on and stepped and trainer.global_step % self.every_n_steps == 0:
            self.write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write between two epochs."""
        self.write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Add to the error of a loss that is no number where the weights of before are."""
        if isinstance(exception, NumericalError) and self.folder is not None:
            before = f"The resume point of before is {self.folder.last}"
            exception.add_note(before if self.folder.last.exists() else "No resume point had been written before it")

    def write(self, trainer: Trainer) -> None:
        """Write now; every process must call this."""
        if self.folder is not None:
            trainer.save_checkpoint(self.folder.last)


class BestStudent(Checkpoint):
    """Keep the student with the highest validation accuracy, weights only; the first of equals.

    Without a validation split there is nothing to select by: the last epoch counts.
    """

    def __init__(self) -> None:
        self.folder: RunFolder | None = None
        self.score = float("-inf")
        self.epoch = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the student if it is better than all before."""
        if trainer.state.fn != "fit" or "val/accuracy" not in trainer.callback_metrics:
            return
        if not math.isfinite(trainer.callback_metrics.get("val/nll", 0.0)):
            return  # answers that are no numbers may still be right by chance
        score = float(trainer.callback_metrics["val/accuracy"])
        if score > self.score:
            self.score, self.epoch = score, trainer.current_epoch
            if self.folder is not None and trainer.is_global_zero:
                card = {"epoch": self.epoch, "val_accuracy": score}
                save_weights(pl_module.student, self.folder.best, card)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Score and epoch of the best student so far."""
        return {"score": self.score, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best of before."""
        self.score, self.epoch = state_dict["score"], state_dict["epoch"]
