"""Where a verb starts: the run that it continues, or the trained student that it looks at."""

import logging
from pathlib import Path

import yaml
from torch import nn

from kdlab.errors import BusyError, IntegrityError, UsageError
from kdlab.run.folder import RunFolder, newest
from kdlab.run.science import Config, differences, science
from kdlab.weights import load_weights

log = logging.getLogger(__name__)


def run_to_continue(ckpt_path: str, run_path: Path, config: Config) -> RunFolder:
    """Return the folder of the run that ``--ckpt_path`` continues.

    Args:
        ckpt_path: a checkpoint of it, or ``last`` for that of the newest run in `run_path`.
        run_path: where a run of this name lies, or the first of several.
        config: the resolved config given now; it must decide the same as the run's own.

    Raises:
        UsageError: if there is no such run, or it was started with another config; with the differences.
    """
    if ckpt_path == "last":
        folder = newest(run_path)
    elif Path(ckpt_path).is_file() and len(Path(ckpt_path).resolve().parents) > 1:
        folder = RunFolder(Path(ckpt_path).resolve().parents[1])
    else:
        raise UsageError(f"ckpt_path is {ckpt_path}, but there is no such file; give a checkpoint of a run, or: last")
    if not folder.config.is_file():
        raise UsageError(f"{folder.path} holds no config.yaml, so it is no run that can be continued")
    before = science(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
    changes = differences(before, science(config))
    if changes:
        raise UsageError(
            f"the run in {folder.path} was started with another config: {'; '.join(changes)}. "
            "Restore these to continue it, or leave --ckpt_path out to start a new run"
        )
    return folder


def load_student(student: nn.Module, ckpt_path: str | None, here: RunFolder, run_path: Path, config: Config) -> Path:
    """Load the weights to evaluate and return where they lie.

    Args:
        student: that gets them.
        ckpt_path: a file, or ``best`` or ``last`` of a run; None for the student that the run's protocol names.
        here: the folder of the config, which may be that of a run.
        run_path: where a run of this name lies, or the first of several, if it is not.
        config: the resolved config given now; that the weights were trained with another one is said.

    Raises:
        UsageError: if there is no run.
        BusyError: if it is still in training, and its student not there yet.
        IntegrityError: if the weights are missing, damaged, or of another network.
    """
    if ckpt_path in (None, "best", "last"):
        folder = here if here.holds_a_run else newest(run_path)
        path = {None: folder.student, "best": folder.best, "last": folder.last}[ckpt_path]
    else:
        path = Path(str(ckpt_path))
    try:
        card = load_weights(student, path)
    except IntegrityError as error:
        around = RunFolder(path.parent)
        if around.config.is_file() and around.in_use:
            raise BusyError(
                f"{path.parent} is still in training; wait for its end, or give --ckpt_path best"
            ) from error
        raise IntegrityError(f"{error}. Train it with `fit`, or name other weights with --ckpt_path") from error
    changes = differences(card["config"], science(config)) if "config" in card else []
    if changes:
        log.warning("%s was trained with another config: %s", path, "; ".join(changes))
    if "epoch" in card:
        log.info("student of epoch %d from %s", card["epoch"] + 1, path)
    return path
