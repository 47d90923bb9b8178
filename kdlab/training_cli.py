"""The verbs fit, validate, test and predict: the config's Trainer with what kdlab adds, and what is done with it."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger

from kdlab.config_checks import check_launched, check_synchronized
from kdlab.config_cli import ConfigCLI
from kdlab.data import ImageData
from kdlab.errors import UsageError
from kdlab.messages import exit_code
from kdlab.methods import Method
from kdlab.run.bad_batch import BadBatch
from kdlab.run.checkpoints import AtomicCheckpointIO, BestStudent, ResumePoint
from kdlab.run.conclusion import conclude, describe_run, trackers_of
from kdlab.run.costs import default_profilers
from kdlab.run.folder import RunFolder
from kdlab.run.guard import guard
from kdlab.run.idle_hooks import skip_idle_hooks
from kdlab.run.metrics_csv import MetricsCSV
from kdlab.run.peers import PeerWatch
from kdlab.run.progress import EpochLines, progress_bar
from kdlab.run.recipes import provide_teachers
from kdlab.run.recorder import RunRecorder
from kdlab.run.rendezvous import wait_openly
from kdlab.run.requeue import slurm_environment
from kdlab.run.resume_check import restoring
from kdlab.run.same_config import SameConfig
from kdlab.run.start import load_student, run_to_continue
from kdlab.run.stopping import StopOnSignal
from kdlab.run.summary import build_result, print_table, write_predictions
from kdlab.run.teacher_check import TeacherCheck
from kdlab.run.tracker import Tracker

log = logging.getLogger(__name__)


class KDLabCLI(ConfigCLI):
    """LightningCLI with kdlab's run folder, teachers that are trained when missing, and a result at the end."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with kdlab's checkpoints, loggers and callbacks."""
        config = self._get(self.config_init, "trainer")
        self.recorder = self._make_recorder(config)
        callbacks = self._make_callbacks(config)
        given = any(isinstance(callback, ProgressBar) for callback in callbacks)
        bar = progress_bar() if config.get("enable_progress_bar") is not False and not given else []
        kwargs |= {
            "callbacks": [*callbacks, *bar],
            "logger": self._make_loggers(config),
            "plugins": [*_listed(config.get("plugins")), AtomicCheckpointIO(), *slurm_environment()],
            "enable_progress_bar": bool(bar) or given,
        }
        trainer = super().instantiate_trainer(**kwargs)
        skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it by a connector
        if not torch.cuda.is_available():  # as Lightning sets it, each optimizer step opens NVIDIA's library anew
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        check_synchronized(trainer.strategy.root_device, trainer.world_size, bool(config.get("sync_batchnorm")))
        check_launched(trainer.num_nodes, trainer.world_size)
        launched_by = getattr(trainer.strategy, "cluster_environment", None)
        if launched_by is not None:
            launched_by.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
        wait_openly(trainer.strategy, trainer.world_size)
        return trainer

    def _make_recorder(self, config: Any) -> RunRecorder | None:  # noqa: ANN401 (the Trainer's section)
        """What keeps the run's folder; None where nothing is trained, or nothing written."""
        if self.subcommand != "fit" or config.get("fast_dev_run"):
            return None
        wanted = self._config.ckpt_path
        resumed = run_to_continue(wanted, self.run_path, self.resolved) if wanted else None
        return RunRecorder(self.run_path, resumed, yaml.safe_dump(self.resolved, sort_keys=False))

    def _make_callbacks(self, config: Any) -> list[Callback]:  # noqa: ANN401
        """The user's callbacks with ours around them; they are called in this order."""
        self.best, self.teacher_check = BestStudent(), TeacherCheck()
        callbacks = [*_listed(config.get("callbacks")), self.best, self.teacher_check, BadBatch()]
        resume_points = [callback for callback in callbacks if isinstance(callback, ResumePoint)] or [ResumePoint()]
        callbacks += [point for point in resume_points if point not in callbacks]
        callbacks.append(StopOnSignal(resume_points[0]))
        self.peers = PeerWatch(resume_points[0], exit_code)
        if self._config.profile and self.subcommand in ("fit", "test") and not self._is_rehearsal:
            callbacks += default_profilers(callbacks)
        elif self._config.profile and self.subcommand == "fit" and not config.get("fast_dev_run"):
            log.info("nothing is profiled: limit_train_batches says that this is a rehearsal")
        # the watch before all that it watches when they start, and the recorder, which claims the folder, before that
        return [
            SameConfig(self.resolved, self._config.get("ckpt_path")),
            *([] if self.recorder is None else [self.recorder]),
            self.peers,
            *callbacks,
        ]

    def _make_loggers(self, config: Any) -> list[Logger]:  # noqa: ANN401
        """Ours, where a run is recorded, and the user's, none of which can stop a training."""
        loggers: list[Logger] = []
        if self.recorder is not None:
            loggers = [MetricsCSV(), EpochLines(config.get("max_epochs"))]
        loggers += [logger for logger in _listed(config.get("logger")) if logger is not True]  # Lightning's default
        for logger in loggers:
            if isinstance(logger, Tracker):
                logger.check_installed()
        return [guard(logger) for logger in loggers]

    # -- verbs --------------------------------------------------------------------------------------------

    def fit(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Train, test the student that the protocol names, and write and show the result."""
        provide_teachers(model, self.parser, self._config, self._is_rehearsal)
        resume = None
        if ckpt_path and self.recorder and self.recorder.folder:
            resume = str(self.recorder.folder.last) if ckpt_path == "last" else ckpt_path
        try:
            with self.peers:
                with restoring(resume):
                    self.trainer.fit(model, datamodule=datamodule, ckpt_path=resume, weights_only=True)
                if self.recorder is not None:
                    recorded = (self.recorder, self.best, self.teacher_check)
                    conclude(self.trainer, model, datamodule, self.resolved, *recorded)
                else:
                    log.info("fast_dev_run: every part ran; nothing was written")
        finally:
            if self.recorder is not None:
                for tracker in trackers_of(self.trainer):
                    tracker.close()
                self.recorder.close()

    def validate(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Show the metrics of a trained student on the validation split."""
        if datamodule.val_fraction == 0:
            raise UsageError("data.val_fraction is 0, so there are no validation images; give more, or use: kdlab test")
        self._load_student(model, ckpt_path)
        with self.peers:
            self.trainer.validate(model, datamodule=datamodule, verbose=self.trainer.is_global_zero)

    def test(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Show the metrics of a trained student on the test split."""
        checkpoint = self._load_student(model, ckpt_path)
        with self.peers:
            self.trainer.test(model, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            run = describe_run(self.resolved, self.run_path, {"selection": f"weights of {checkpoint}"})
            print_table(build_result(self.trainer, model, datamodule, run))

    def predict(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Write the class and confidence that a trained student gives to each test image."""
        if self.trainer.world_size > 1:
            raise UsageError(f"predict runs in one process, not in {self.trainer.world_size}; set --trainer.devices 1")
        checkpoint = self._load_student(model, ckpt_path)
        batches: Any = self.trainer.predict(model, datamodule=datamodule)
        path = checkpoint.parent / "predictions.csv"
        write_predictions(batches, datamodule.class_names, path)
        log.info("predictions are in %s", path)

    def _load_student(self, model: Method, ckpt_path: str | None) -> Path:
        return load_student(model.student, ckpt_path, RunFolder(self.config_folder), self.run_path, self.resolved)


def _listed(value: Any) -> list[Any]:  # noqa: ANN401
    """What a slot of the Trainer holds, one object or several, as a list; none where it is not set."""
    return list(value) if isinstance(value, list) else [value] if value else []
