"""Being told to stop: finish the step, write the resume point, and leave with the exit code of the signal."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from kdlab.run.checkpoints import ResumePoint

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STEPS_BETWEEN_QUESTIONS = 8  # with several processes, which must agree: asking is a wait for all of them


class Stopped(SystemExit):
    """The run was told to stop, and its resume point is written; ``code`` is 128 + the number of the signal."""


class StopOnSignal(Callback):
    """On SIGTERM or Ctrl-C finish the running step, or the running validation, and write the resume point.

    With several processes all finish the same step. A second signal ends the process at once. (Lightning alone ends
    with code 0 and without a resume point.)

    Args:
        resume_point: what writes it.
    """

    def __init__(self, resume_point: ResumePoint) -> None:
        self.resume_point = resume_point
        self._received = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, from now on in Lightning's place."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not let us
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop after an optimizer step in mid-epoch."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and batch_idx + 1 < trainer.num_training_batches and self._stops(trainer, batch_idx):
            self.resume_point.write(trainer)
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs, where the resume point is written already."""
        if trainer.current_epoch > 0 and self._stops(trainer, -1):
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, before Lightning gives back those it took."""
        while self._before:
            signal.signal(*self._before.popitem())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.on_train_end(trainer, pl_module)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._received = number
        log.warning("%s: stopping after this step; once more ends at once", signal.Signals(number).name)

    def _stops(self, trainer: Trainer, batch_idx: int) -> bool:
        if trainer.world_size == 1:
            return self._received > 0
        if (batch_idx + 1) % STEPS_BETWEEN_QUESTIONS:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(self._received > 0, all=False))

    def _stop(self, trainer: Trainer) -> None:
        number = self._received or signal.SIGTERM  # a process that another one's signal stops
        folder = self.resume_point.folder
        if folder is not None:
            log.warning(
                "stopped after step %d; continue with: python -m kdlab fit --config %s --ckpt_path %s",
                trainer.global_step, folder.config, folder.last,
            )  # fmt: skip
        raise Stopped(128 + number)
