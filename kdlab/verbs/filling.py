"""A cached teacher is asked all that a config's runs will ask."""

from __future__ import annotations

import sys
import time
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from kdlab.config_cli import ConfigCLI
from kdlab.data import ImageData
from kdlab.errors import UsageError
from kdlab.methods import Method
from kdlab.run.recipes import provide_teachers
from kdlab.teachers import CachedTeacher
from kdlab.teachers.filling import ask_about
from kdlab.teachers.row_file import RowFile, gib
from kdlab.teachers.views import asked_rows, used_rows

Views = Literal["all", "used"]


class Filler(ConfigCLI):
    """Sets a config up as for training, on one device, and asks its teacher instead of training.

    Args:
        args: of `fit`.
        views: which rows to fill: all, or those that the config's seed and epochs will ask for.
    """

    def __init__(self, args: list[str], views: Views) -> None:
        self.views: Views = views
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return one that takes no step: where a run would start, the teacher is asked."""
        config = self._config.trainer
        return Trainer(
            accelerator=config.accelerator, devices=1, precision=config.precision, max_epochs=config.max_epochs,
            limit_train_batches=0, limit_val_batches=0, callbacks=[_Fill(self.views)], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    def fit(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Make sure that the teacher is there, and ask it."""
        provide_teachers(model, self.parser, self._config, self._is_rehearsal)
        for part in model.modules():
            if isinstance(part, CachedTeacher):
                part.ahead = False  # here it is asked what `views` says
        self.trainer.fit(model, datamodule=datamodule)


class _Fill(Callback):
    def __init__(self, views: Views) -> None:
        self.views = views

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask all cached teachers of the method."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        teachers = [part for part in pl_module.modules() if isinstance(part, CachedTeacher) and part.file is not None]
        if not teachers:
            raise UsageError(
                "the config has no CachedTeacher with trained weights, so there is nothing to remember; "
                "wrap its teacher: class_path: CachedTeacher, init_args: {teacher: ...}"
            )
        for teacher in teachers:
            _fill(trainer, teacher, data, asked_rows(data) if self.views == "all" else _used_rows(trainer, data))


def _used_rows(trainer: Trainer, data: ImageData) -> Tensor:
    """The numbers of the rows that a run of this seed and length asks for."""
    if not trainer.max_epochs or trainer.max_epochs < 0:
        raise UsageError(f"--views used needs a number of epochs, and trainer.max_epochs is {trainer.max_epochs}")
    return used_rows(data, data.train_dataloader().draw, trainer.max_epochs)


def _fill(trainer: Trainer, teacher: CachedTeacher, data: ImageData, rows: Tensor) -> None:
    """Ask for the missing rows; what was answered is kept whenever this ends."""
    file = teacher.file
    assert file is not None
    teacher.expect(rows)  # not what a training of this config would ask for
    missing = rows[~file.known()[rows]]
    print(f"{file.folder}: {gib(file.size_bytes)}, {len(rows) - len(missing):,} of {len(rows):,} answers are there")
    began = time.monotonic()
    device = trainer.strategy.root_device
    teacher.to(device)
    if len(missing):
        _require_writable(file)
    columns = (TextColumn("asking the teacher"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(missing))
        with trainer.precision_plugin.train_step_context():
            split = data.train_dataloader().split
            for asked in ask_about(teacher, data, split, missing, data.eval_batch_size, device):
                _require_writable(file)
                progress.advance(task, asked)
    file.sync()
    if len(missing):
        _require_writable(file)
    seconds = time.monotonic() - began
    lacking = int((~file.known()[rows]).sum())
    rate = f", {len(missing) / seconds:,.0f} images/s" if len(missing) else ""
    print(f"{len(rows) - lacking:,} answers are there, {lacking:,} are missing; {seconds:.1f} s{rate}")


def _require_writable(file: RowFile) -> None:
    if not file.writable:
        raise UsageError(
            f"{file.path} cannot be written (the reason is above); mend it and start again, which goes on where this "
            "ended, or choose another cache_dir"
        )
