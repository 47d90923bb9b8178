"""The images behind a loss that is no number, as a file that can be looked at."""

import json
import logging
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kdlab.methods.finite import NotFiniteError, Seen
from kdlab.run.folder import RunFolder
from kdlab.tensor_files import write_tensors

log = logging.getLogger(__name__)


class BadBatch(Callback):
    """When a loss is not finite, write the batch, and that of the step before, into the run's folder.

    ``bad_batch.safetensors`` has ``image``, ``label``, ``index``, ``view`` as the student saw them, and the ``step`` of
    each image. Under DDP each process that finds such a loss writes its own part of the batch.
    """

    def __init__(self) -> None:
        self.folder: RunFolder | None = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write, and add to the error where."""
        if not isinstance(exception, NotFiniteError) or self.folder is None or not exception.seen:
            return
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder.path / f"bad_batch{rank}.safetensors"
        try:
            write_batches(exception.seen, path, str(exception))
        except Exception as error:  # such as a full disk, or a lost GPU: the loss is what the user must know
            log.warning("%s cannot be written (%s)", path, getattr(error, "strerror", None) or error)
        else:
            exception.add_note(f"The images of the step, and of the one before, are in {path}")


def write_batches(seen: tuple[Seen, ...], path: Path, error: str) -> None:
    """Write batches one behind the other, with ``step`` ``[B]`` of each image; `error` goes into the card."""
    parts = [each.batch._asdict() | {"step": torch.full((len(each.batch.label),), each.step)} for each in seen]
    tensors = {name: torch.cat([part[name].detach().cpu() for part in parts]) for name in parts[0]}
    write_tensors(path, tensors, {"kdlab": json.dumps({"error": error})})
