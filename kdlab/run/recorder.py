"""The callback that keeps a run's folder: claimed when training starts, filled while it runs."""

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kdlab.atomic import write_text
from kdlab.errors import KDLabError, UsageError
from kdlab.methods import Method
from kdlab.run.bad_batch import BadBatch
from kdlab.run.checkpoints import BestStudent, ResumePoint
from kdlab.run.folder import RunFolder, claim_new
from kdlab.run.metrics_csv import MetricsCSV
from kdlab.run.progress import EpochLines
from kdlab.run.tracker import Tracker
from kdlab.types import Batch

log = logging.getLogger(__name__)


class RunRecorder(Callback):
    """Give the run its folder, and keep config, metrics, log and clock in it.

    The folder is made when everything has been built and checked, so a run that cannot start leaves nothing.

    Args:
        wanted: the folder to use, with a number appended if it holds another run.
        resumed: the folder of the run that is continued, instead of a new one.
        config: the resolved config, YAML.
    """

    def __init__(self, wanted: Path, resumed: RunFolder | None, config: str) -> None:
        self.wanted = wanted
        self.config = config
        self.folder: RunFolder | None = resumed
        self._resumes = resumed is not None
        self.train_seconds = 0.0  # of all processes that worked on this run, one after the other
        self.images_per_s: list[float] = []  # training part of each epoch; in an ensemble, of each member
        self._resume_step = 0
        self._world_size = 1
        self._epoch_images = 0
        self._started = 0.0
        self._epoch_started: float | None = None
        self._log_file: logging.Handler | None = None
        self._claimed = False  # by this process

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count the processes, which a checkpoint is compared with before `on_fit_start`."""
        self._world_size = trainer.world_size

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Claim the folder and hand it to all that write into it."""
        error: KDLabError | None = None
        if trainer.is_global_zero:
            try:
                self._claim()
            except KDLabError as caught:
                error = caught
        error, path = trainer.strategy.broadcast((error, self.folder.path if self.folder else None))
        if error is not None:  # of the first process; the others would wait for it for ever
            raise error
        self.folder = self.folder or RunFolder(str(path))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, (ResumePoint, BestStudent, BadBatch)):
                callback.folder = self.folder
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                logger.open(self.folder.metrics, step=self._resume_step)
            if isinstance(logger, EpochLines):
                logger.start()
            if isinstance(logger, Tracker) and trainer.is_global_zero:
                logger.begin(self.folder, self._resume_step)
        self._started = time.monotonic()

    def _claim(self) -> None:
        if self.folder is None:
            self.folder = claim_new(self.wanted)
        else:
            self.folder.claim()
        self._claimed = True
        if not self._resumes:
            write_text(self.folder.config, self.config)
        self._log_file = _log_to(self.folder.log)
        log.info("run folder %s", self.folder.path)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Start the clock of an epoch's training part at its first batch in this process."""
        if self._epoch_started is None:
            self._epoch_started, self._epoch_images = time.monotonic(), 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the images, and stop the clock of an epoch's training part after its last batch."""
        self._epoch_images += len(batch.label) // cast("Method", pl_module).streams * trainer.world_size
        if batch_idx + 1 < trainer.num_training_batches or self._epoch_started is None:
            return
        trainer.strategy.barrier()
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.images_per_s.append(self._epoch_images / (time.monotonic() - self._epoch_started))
        self._epoch_started = None

    def state_dict(self) -> dict[str, Any]:
        """The time spent so far, and the speed of each epoch."""
        return {"train_seconds": self._seconds(), "images_per_s": self.images_per_s, "world_size": self._world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the clock.

        Raises:
            UsageError: if another number of processes shared the batches: it is another global batch.
        """
        before = state_dict["world_size"]
        if before != self._world_size:
            raise UsageError(
                f"the run was started with {before} process(es), now there are {self._world_size}; continue it with "
                f"{before} (--trainer.devices times --trainer.num_nodes), or leave --ckpt_path out to start a new run"
            )
        self.train_seconds, self.images_per_s = state_dict["train_seconds"], state_dict["images_per_s"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how far the run was; the Trainer itself learns it only after `on_fit_start`."""
        self._resume_step = checkpoint["global_step"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.train_seconds, self._started = self._seconds(), 0.0

    def close(self) -> None:
        """Give the folder up."""
        if self._log_file is not None:
            logging.getLogger().removeHandler(self._log_file)
            self._log_file.close()
            self._log_file = None
        if self._claimed:
            assert self.folder is not None
            self._claimed = False
            self.folder.release()

    def _seconds(self) -> float:
        return self.train_seconds + (time.monotonic() - self._started if self._started else 0.0)


class RunLog(logging.FileHandler):
    """A log file that may fail, as on a full disk: it is said once, and training goes on."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless one before could not be written."""
        if not self.failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in logging)
        """Say it once, where Python would print a traceback for each line."""
        self.failed = True
        log.warning("%s cannot be written (%s); training goes on without it", self.baseFilename, sys.exception())

    def close(self) -> None:
        """Close the file, whatever becomes of what could not be written."""
        with suppress(OSError):
            super().close()


def _log_to(path: Path) -> logging.Handler:
    """Copy what is logged and warned from now on into the run's log.txt."""
    handler = RunLog(path, encoding="utf-8", errors="backslashreplace")  # names of files may be any bytes
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    return handler
