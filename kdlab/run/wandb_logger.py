"""Weights & Biases, so that it can neither stop nor delay a training: offline unless it is asked for."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch import loggers as lightning
from lightning.pytorch.utilities import rank_zero_only

from kdlab.atomic import write_text
from kdlab.data import ImageData
from kdlab.errors import UsageError, one_line
from kdlab.methods import Method
from kdlab.run.exhibits import Exhibits
from kdlab.run.folder import RunFolder
from kdlab.run.metrics_csv import MACHINE, read_rows
from kdlab.run.study_place import StudyPlace
from kdlab.run.tracker import NoExperiment, Tracker
from kdlab.run.wandb_content import config_of, data_within, log_artifacts, media_of, summary_of, tag
from kdlab.run.wandb_server import ADDRESS, Server, mark_sent, setting, settle, wandb_says

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]

INIT_S = 4  # for a server that answered already
FINISH_S = 300  # for what is still to be sent at the end
ONCE = (*MACHINE, "analysis/")
STEP = "trainer/global_step"  # as Lightning calls it: the x-axis of all metrics
# log.txt has the console, result.json the commit; an address of git may hold a password
QUIET: dict[str, Any] = {"silent": True, "console": "off", "save_code": False, "disable_git": True,
                         "finish_timeout_raises": True}  # fmt: skip


class WandbLogger(Tracker, lightning.WandbLogger):
    """Track a run with Weights & Biases, in files inside the run's folder; online only if the user asks for it.

    Without an account, a key or a network nothing is asked and nothing fails: the run is tracked offline, and
    ``python -m kdlab sync RUN`` sends it later. So is a run whose server was asked for and does not take it within
    seconds, which is said once. What is sent, and under which names, is in docs/tracking.md.

    Args:
        project: that the run belongs to; by default WANDB_PROJECT, or else kdlab.
        entity: user or team that the project belongs to; by default that of the key.
        mode: auto is online where WANDB_MODE is online, otherwise offline; disabled tracks nothing.
        tags: beside those of experiment, study and variant.
    """

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        mode: Mode = "auto",
        tags: list[str] | None = None,
    ) -> None:
        super().__init__(project=project or setting("WANDB_PROJECT") or "kdlab", entity=entity)
        self.mode = mode
        self.tags = tags or []
        self._run: Run | None = None
        self._folder = RunFolder(".")
        self._rows = 0  # of the history; they are those of metrics.csv, in the same order

    def check_installed(self) -> None:
        """Refuse a project that wandb does not take: it would do so when training begins.

        Raises:
            UsageError: if it is none.
        """
        import wandb

        try:
            wandb.Settings(project=self.name)
        except (ValueError, wandb.Error) as error:
            raise UsageError(
                f"trainer.logger.project is {self.name!r}: {wandb_says(error)}; give another one"
            ) from error

    @property
    def experiment(self) -> Any:  # noqa: ANN401 (a run, or what stands for none)
        """The run of wandb, or something that does nothing before `begin` and after `close`."""
        return self._run or NoExperiment()

    @property
    def version(self) -> str | None:
        """The id of the run, if it has begun."""
        return None if self._run is None else self._run.id

    # -- the life of a run --------------------------------------------------------------------------------

    def begin(self, folder: RunFolder, step: int | None) -> None:
        """Open the run of this folder, or continue it under its id.

        A process that is killed takes the last seconds with it, so a resumed run sends the rows of metrics.csv once
        more: a row has a number, and what is sent twice is the same row.
        """
        wanted = _wanted(self.mode)
        if wanted == "disabled":
            return
        self._folder, self._rows = folder, 0
        refused = settle()
        problem = refused.pop(ADDRESS, None)
        for why in refused.values():
            log.warning("W&B: %s; it is left out", why)
        if wanted == "online" and problem is None:
            problem = Server.find().refusal() or self._open_online()
        if self._run is None:
            self._run = self._open("offline")
        if problem is not None:
            log.warning("W&B: %s; tracked offline. To send it later: python -m kdlab sync %s", problem, folder.path)
        elif wanted == "offline":
            log.info("W&B: tracked offline. To send it later: python -m kdlab sync %s", folder.path)
        for row in [] if step is None else read_rows(folder.metrics):
            self._log({STEP if name == "step" else name: value for name, value in row.items()})

    def conclude(self, trainer: Trainer, method: Method, data: ImageData, result: Mapping[str, Any]) -> None:
        """Add results, profile, tables, diagrams and examples, and the student as an artifact."""
        if self._run is None:
            return
        self._run.summary.update(summary_of(result))
        exhibits = Exhibits.of(trainer, method, data, result)
        with data_within(self._folder):
            self._log(media_of(exhibits))
            log_artifacts(self._run, self._folder, result)

    def close(self) -> None:
        """Finish the run's file, or its upload."""
        self._finish(0)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish a run that was stopped or failed; one that succeeded is still to be tested and concluded."""
        if status != "success":
            self._finish(1)

    # -- what is logged -----------------------------------------------------------------------------------

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row to the history for each row of metrics.csv; what is found out once goes to the summary."""
        if self._run is None:
            return
        if all(name.startswith(ONCE) for name in metrics):
            self._run.summary.update(dict(metrics))
        else:
            self._log({**metrics, STEP: step})

    def _log(self, row: dict[str, Any]) -> None:
        """Add a row under its number."""
        assert self._run is not None
        self._run.log(row, step=self._rows, commit=True)
        self._rows += 1

    # -- opening and closing ------------------------------------------------------------------------------

    def _open(self, mode: Literal["online", "offline"]) -> Run:
        """Start wandb; its files must lie in the run's folder.

        Raises:
            OSError: if they cannot; wandb itself would take the system's temporary folder without a word.
        """
        import wandb

        folder = self._folder
        place = StudyPlace.of(folder)
        run = wandb.init(
            dir=str(folder.path),
            mode=mode,
            project=self.name,
            entity=self._wandb_init.get("entity"),
            id=run_id(folder),
            resume="allow" if mode == "online" else None,
            name=place.title,
            group=place.study or place.experiment,
            tags=[tag(text) for text in (*place.tags, *self.tags)],
            config=config_of(folder, place),
            allow_val_change=True,
            settings=wandb.Settings(init_timeout=INIT_S, finish_timeout=FINISH_S, **QUIET),
        )
        if folder.path.resolve() not in Path(run.dir).resolve().parents:
            run.finish(exit_code=1)
            raise OSError(f"wandb cannot write into {folder.path} and would write into {run.dir}")
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run

    def _open_online(self) -> str | None:
        """Start wandb with its server; returns why it does not, with nothing left of the attempt."""
        before = set(self._folder.path.glob("wandb/run-*"))
        try:
            self._run = self._open("online")
        except Exception as error:  # whatever wandb raises, it is no reason not to train
            _end_service()
            for attempt in set(self._folder.path.glob("wandb/run-*")) - before:
                shutil.rmtree(attempt)
            return one_line(error)
        return None

    def _finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:  # too slow, or its process has died
            log.warning(
                "W&B: not all was sent (%s). To send the rest: python -m kdlab sync %s",
                one_line(error), self._folder.path,
            )  # fmt: skip
        else:
            if not run.offline:
                mark_sent(Path(run.dir).parent)
        _end_service()


def run_id(folder: RunFolder) -> str:
    """The id of this run at W&B: that of its folder, else of the sweep agent that started it, else a new one."""
    path = folder.path / "wandb" / "run_id"
    if not path.exists():
        write_text(path, setting("WANDB_RUN_ID") or secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()


def _end_service() -> None:
    """Wait for wandb's own process: it writes on after `finish`, and keeps the id of a run that it could not start."""
    import wandb

    with suppress(Exception):  # it has died already
        wandb.teardown()


def _wanted(mode: Mode) -> Mode:
    """What `mode` means in this environment; a key alone is no request."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):  # wandb alone no longer reads it
        return "disabled"
    asked = os.environ.get("WANDB_MODE", "")
    return "online" if asked == "online" else "disabled" if asked == "disabled" else "offline"
