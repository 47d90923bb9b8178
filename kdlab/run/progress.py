"""What a person, or a log file, sees while a run goes on."""

import logging
import sys
import time
from datetime import timedelta

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


def progress_bar() -> list[Callback]:
    """A live bar, for a terminal only: in a file it would be thousands of lines."""
    return [RichProgressBar(leave=False)] if sys.stderr.isatty() else []


class EpochLines(Logger):
    """Write one line per epoch: training loss and accuracy, validation accuracy, time left.

    Args:
        max_epochs: how many epochs there will be; None where that is not known.
    """

    def __init__(self, max_epochs: int | None) -> None:
        super().__init__()
        self._max_epochs = max_epochs
        self._validation = ""
        self._epochs_seen = 0
        self._started = self._first_line = time.monotonic()

    def start(self) -> None:
        """Start the clock: what came before, such as the training of a teacher, says nothing of the epochs to come."""
        self._started = time.monotonic()

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "lines"

    @property
    def version(self) -> int:
        """Not used."""
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the line when the means of an epoch arrive; the validation comes shortly before them."""
        if "val/accuracy" in metrics:
            self._validation = f"  val accuracy {metrics['val/accuracy']:.4f}  nll {metrics['val/nll']:.4f}"
        if "train/loss" not in metrics:
            return
        self._epochs_seen += 1
        done = int(metrics["epoch"]) + 1
        line = f"epoch {done}/{self._max_epochs or '?'}  loss {metrics['train/loss']:.4f}"
        line += f"  train accuracy {metrics['train/accuracy']:.4f}{self._validation}"
        now = time.monotonic()
        if self._epochs_seen == 1:
            self._first_line = now
        if self._max_epochs and self._max_epochs > done:
            # the first epoch has what is done once, such as compiling, so it counts only while it is the only one
            others = self._epochs_seen - 1
            per_epoch = (now - self._first_line) / others if others else now - self._started
            line += f"  {timedelta(seconds=round(per_epoch * (self._max_epochs - done)))} left"
        log.info(line)

    @rank_zero_only
    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing to say."""
