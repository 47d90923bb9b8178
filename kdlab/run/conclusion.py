"""How a training ends: the student that the protocol names is kept and tested, and the result is written."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from kdlab.data import ImageData
from kdlab.errors import UsageError
from kdlab.methods import Method
from kdlab.run.checkpoints import BestStudent
from kdlab.run.recorder import RunRecorder
from kdlab.run.science import Config, science
from kdlab.run.summary import build_result, print_table, write_result
from kdlab.run.teacher_check import TeacherCheck
from kdlab.run.tracker import Tracker
from kdlab.weights import load_weights, save_weights

log = logging.getLogger(__name__)


def conclude(
    trainer: Trainer,
    method: Method,
    data: ImageData,
    config: Config,
    recorder: RunRecorder,
    best: BestStudent,
    teacher_check: TeacherCheck,
) -> None:
    """Keep the student that the protocol names, test it, write and show the result.

    Args:
        trainer: has just trained.
        method: that was trained.
        data: on which.
        config: the resolved config of the run.
        recorder: keeps the run's folder.
        best: knows the best validation epoch, where there is one.
        teacher_check: knows how good the teacher is.

    Raises:
        UsageError: if nothing was trained.
    """
    folder = recorder.folder
    assert folder is not None
    if trainer.global_step == 0:
        raise UsageError(
            "training ended before its first step, so there is no student; raise trainer.max_time (it is "
            f"{config['trainer']['max_time']}), or leave it out"
        )
    selected = best.epoch >= 0
    if trainer.is_global_zero:
        card = load_weights(method.student, folder.best) if selected else {"epoch": trainer.current_epoch - 1}
        card |= {"network": type(method.student).__name__, "config": science(config)}
        save_weights(method.student, folder.student, card)
    trainer.strategy.barrier()
    load_weights(method.student, folder.student)
    trainer.test(method, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return
    protocol = {
        "selection": "best validation epoch" if selected else "last epoch",
        "selected_epoch": card["epoch"],
        "epochs": trainer.current_epoch,
    }
    part = {name: config["trainer"].get(name) for name in ("limit_train_batches", "overfit_batches")}
    protocol |= {name: value for name, value in part.items() if value not in (None, 0, 1.0) or value is True}
    run = describe_run(config, folder.path, protocol)
    if teacher_check.report:
        run["teacher_check"] = teacher_check.report
    result = build_result(trainer, method, data, run, recorder)
    result["student"]["val"] = {"accuracy": card.get("val_accuracy")}
    write_result(result, folder.result)
    print_table(result)
    for tracker in trackers_of(trainer):
        tracker.conclude(trainer, method, data, result)
    log.info("result, weights and config are in %s", folder.path)


def describe_run(config: Config, path: Path, protocol: dict[str, Any]) -> dict[str, Any]:
    """Say which run a result is of.

    Args:
        config: the resolved config.
        path: the run's folder.
        protocol: how the student was chosen.
    """
    return {
        "experiment": config["experiment"],
        "name": path.name,
        "seed": config["seed_everything"],
        "protocol": protocol,
    }


def trackers_of(trainer: Trainer) -> list[Tracker]:
    """The loggers that follow the run; they work in the first process only."""
    return [logger for logger in trainer.loggers if isinstance(logger, Tracker)]
