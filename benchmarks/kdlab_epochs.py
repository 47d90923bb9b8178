"""Epochs of ``kdlab fit``; `epoch.py` starts it as a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time

from lightning.pytorch import Callback, LightningModule, Trainer
from measuring import Device, Turns

from kdlab.cli import main as kdlab

TURNS = Turns()


class OneEpochPerTurn(Callback):
    """Let each epoch wait for its turn, and answer with its images per second.

    The clock runs until the next epoch starts: with the loader, the log, checkpoints and all else that `fit` does.
    """

    began: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of the last epoch; start that of this one when it is its turn."""
        if self.began is not None:
            device = Device(pl_module.device.type)
            device.synchronize()
            images = trainer.train_dataloader.images_per_epoch
            rate = images / (time.perf_counter() - self.began)
            TURNS.answer(images_per_s=rate, settings=device.settings())
        if not TURNS.wait():
            os._exit(0)  # in the middle of a run that nobody needs
        self.began = time.perf_counter()


def main(arguments: list[str], fill: bool) -> None:
    """Let the teacher say what this run will ask, if it is one that remembers; then train."""
    sys.argv = ["kdlab"]
    if fill and (code := kdlab(["cache", "--views", "used", *arguments])):
        sys.exit(code)
    sys.modules["kdlab_epochs"] = sys.modules["__main__"]
    sys.exit(kdlab(["fit", *arguments, "--profile", "false", "--trainer.callbacks+=kdlab_epochs.OneEpochPerTurn"]))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
