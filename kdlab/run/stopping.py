"""Being told to stop: finish the step, write the resume point, and leave with the exit code of the signal."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from kdlab.profiling.budget import STEPS_BETWEEN_QUESTIONS
from kdlab.run.checkpoints import ResumePoint
from kdlab.run.requeue import REQUEUE_SIGNAL, requeue, under_slurm
from kdlab.run.signals import handling

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """The run was told to stop, and its resume point is written; ``code`` is 128 + the number of the signal."""


class StopOnSignal(Callback):
    """On SIGTERM or Ctrl-C finish the running step, or the running validation, and write the resume point.

    With several processes all finish the same step, whichever of them the signal reached. A second signal ends the
    process at once. Under SLURM, SIGUSR1 does the same and puts the job into the queue again. (Lightning alone ends
    with code 0 and without a resume point.)

    Several processes must agree, and asking is a wait for all of them. Lightning asks in every step; here they are
    asked in every eighth and between epochs.

    Args:
        resume_point: what writes it.
    """

    def __init__(self, resume_point: ResumePoint) -> None:
        self.resume_point = resume_point
        self._received = 0
        self._before: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning from listening: its handler waits for all processes, wherever the signal interrupts one."""
        setattr(trainer._signal_connector, "register_signal_handlers", _ask_nobody)  # noqa: B010 (mypy)
        setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", _ask_nobody)  # noqa: B010

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        self._listen(self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Stop after an optimizer step in mid-epoch."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and batch_idx + 1 < trainer.num_training_batches and (number := self._agreed(trainer, batch_idx)):
            self.resume_point.write(trainer)
            self._stop(trainer, number)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs, where the resume point is written already."""
        if trainer.current_epoch > 0 and (number := self._agreed(trainer, -1)):
            self._stop(trainer, number)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Outside of training there is nothing to finish: end, and the others with us."""
        if trainer.world_size > 1 and trainer.state.fn != "fit":
            self._listen(leave)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what a validation on its own does."""
        self.on_validation_start(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back after a validation on its own."""
        if trainer.state.fn != "fit":
            self._give_back()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, and stop after the last epoch, whose resume point is written: the test comes later."""
        self._give_back()
        if number := self._agreed(trainer, -1):
            self._stop(trainer, number)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def _listen(self, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not let us
            self._before = {number: signal.signal(number, handler) for number in (*SIGNALS, *_of_slurm())}

    def _give_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received == number == REQUEUE_SIGNAL:
            return  # from SLURM, and from the process whose teacher is trained here
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._received = number
        log.warning("%s: stopping after this step; once more ends at once", signal.Signals(number).name)

    def _agreed(self, trainer: Trainer, batch_idx: int) -> int:
        """The signal to stop for, the same in all processes; 0 where none came, or nobody is asked in this step."""
        if trainer.world_size == 1:
            return self._received
        if (batch_idx + 1) % STEPS_BETWEEN_QUESTIONS:
            return 0
        received = torch.tensor(self._received, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)  # Lightning's own waits twice
        return int(received)

    def _stop(self, trainer: Trainer, number: int) -> None:
        folder = self.resume_point.folder
        if folder is not None:
            log.warning(
                "stopped after step %d; continue with: python -m kdlab fit --config %s --ckpt_path %s",
                trainer.global_step, folder.config, folder.last,
            )  # fmt: skip
        if number == REQUEUE_SIGNAL:
            if trainer.is_global_zero:
                requeue()
            trainer.strategy.barrier()  # the first that ends may take all with it: `srun --kill-on-bad-exit=1`
        raise Stopped(128 + number)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Let SIGTERM, and SLURM's signal, end this process with their exit code wherever nothing has to be finished."""
    numbers = (signal.SIGTERM, *_of_slurm()) if threading.current_thread() is threading.main_thread() else ()
    with handling(numbers, leave):
        yield


def leave(number: int, frame: FrameType | None) -> None:
    """End this process with the exit code of a signal; once more ends it at once.

    SLURM sends its signal to all processes of a job. The first puts the job into the queue again, and takes the others
    along.
    """
    if number != REQUEUE_SIGNAL:
        signal.signal(number, signal.SIG_DFL)
    elif getattr(rank_zero_only, "rank", 0) == 0:
        signal.signal(number, signal.SIG_IGN)
        requeue()
    else:
        return
    sys.exit(128 + number)


def _of_slurm() -> tuple[int, ...]:
    return (REQUEUE_SIGNAL,) if under_slurm() else ()


def _ask_nobody() -> None:
    """What Lightning does in place of its own, which asks all processes whether SIGTERM came."""
