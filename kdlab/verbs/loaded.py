"""A run's method and data, built again by the parser that trained it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from kdlab.config_cli import ConfigCLI
from kdlab.config_files import find_config
from kdlab.data import ImageData
from kdlab.errors import IntegrityError, UsageError
from kdlab.methods import Method
from kdlab.run.folder import RunFolder
from kdlab.run.science import differences, science
from kdlab.teachers import FrozenTeacher, Teacher
from kdlab.weights import Card, load_weights
from kdlab.yaml_check import check_yaml

log = logging.getLogger(__name__)

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth")

# where and how the run was trained says nothing of what it is
_ANYWHERE = (
    "--profile=false", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto",
    "--trainer.num_nodes=1", "--trainer.logger=false", "--trainer.callbacks=null", "--trainer.plugins=null",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """What a run, or a config that has not run yet, consists of.

    Attributes:
        name: of the run's folder or of the config.
        method: in eval mode on the processor; its student has the run's weights.
        data: the data set, not read yet.
        card: what the weights say of themselves; empty for a config.
        folder: of the run; None for a config.
        config: the resolved config.
        weights: the file that the student's weights are from; None for a config.
    """

    name: str
    method: Method
    data: ImageData
    card: Card
    folder: RunFolder | None
    config: dict[str, Any]
    weights: Path | None = None

    @property
    def is_final(self) -> bool:
        """Whether these are the weights that the run's protocol names, those of its result.json."""
        return self.folder is not None and self.weights == self.folder.student

    def teacher(self, required: bool = True) -> Teacher | None:
        """Return the teacher with its weights; None where the run has none, or one that is not kept (logged).

        Args:
            required: whether weights that are not there are an error; otherwise there is no teacher (logged).

        Raises:
            IntegrityError: if they are required and not there.
        """
        teacher = self.method.teacher
        if teacher is None:
            return None
        try:
            teacher.load()
        except IntegrityError as error:
            if required:
                raise
            log.warning("%s is looked at without its teacher: %s", self.name, error)
            return None
        if not teacher.ready:
            log.warning("%s is looked at without its teacher: a teacher that learns is not kept with a run", self.name)
            return None
        return teacher.eval()


def load_run(path: Path | str, data_dir: str | None = None) -> LoadedRun:
    """Build the method and data of a run and load its student.

    Args:
        path: the run's folder, for the student that its protocol names, or a file of weights in it, for those.
        data_dir: folder of the data sets, where it is not the one of the training any more.

    Raises:
        UsageError: if it is neither.
        IntegrityError: if the student's weights are missing, damaged, or of another network.
    """
    folder = find_folder(Path(path))
    weights = folder.student if Path(path).is_dir() else Path(path)
    if not weights.is_file():
        raise IntegrityError(
            f"the run in {path} has no student.safetensors: it has not ended; continue it with: "
            f"python -m kdlab fit --config {folder.config} --ckpt_path {folder.last}, or name one of its checkpoints"
        )
    cli = _build(folder.config, data_dir)
    card = load_weights(cli.model.student, weights)
    _find_teachers(cli.model, folder, cli.resolved)
    changes = differences(card["config"], science(cli.resolved)) if "config" in card else []
    if changes:
        log.warning("%s was trained with another config: %s", weights, "; ".join(changes))
    name = folder.path.resolve().name
    if weights.resolve() == folder.student.resolve():
        weights = folder.student
    else:
        name = f"{name}/{weights.resolve().relative_to(folder.path.resolve()).as_posix()}"
    return LoadedRun(name, cli.model.eval(), cli.datamodule, card, folder, cli.resolved, weights)


def find_folder(path: Path) -> RunFolder:
    """Return the run that `path` is, or that the file at `path` lies in.

    Raises:
        UsageError: if there is none.
        IntegrityError: if `path` names a file of weights that does not exist.
    """
    if not path.is_file():
        if (path / "config.yaml").is_file():
            return RunFolder(path)
        if path.suffix in WEIGHTS and not path.exists():
            raise IntegrityError(f"{path} does not exist; give the run's folder, or a file of weights in it")
        raise UsageError(
            f"{path} is no run: it holds no config.yaml; give a folder that `fit` wrote, runs/<experiment>/<name>, "
            "or a file of weights in it"
        )
    for parent in (*path.parents[:2], *path.resolve().parents[:2]):
        if (parent / "config.yaml").is_file() and path.suffix in WEIGHTS:
            return RunFolder(parent)
    raise UsageError(
        f"{path} is no file of weights ({', '.join(WEIGHTS)}) in a run's folder, so its network is not known; "
        "give the run's folder"
    )


def load_config(name: str) -> LoadedRun:
    """Build the method and data of a config, with random weights.

    Args:
        name: a file, or a config of the package by name, such as ``digits/logit_matching``.

    Raises:
        UsageError: if there is no such config, or it cannot be built.
    """
    path = Path(find_config(name))
    cli = _build(path, None)
    return LoadedRun(path.stem, cli.model.eval(), cli.datamodule, {}, None, cli.resolved)


def _find_teachers(method: Method, folder: RunFolder, config: dict[str, Any]) -> None:
    """Let teachers whose relative path leads nowhere from here be found from where the run was trained."""
    runs_dir = Path(str(config.get("runs_dir") or "."))
    if runs_dir.is_absolute():
        return
    above = folder.path.resolve().parents  # of <root>/<runs_dir>/<experiment>/<name>; an experiment may be a/b
    depth = len(runs_dir.parts) + len(Path(str(config["experiment"])).parts)
    root = above[min(depth, len(above) - 1)]
    for part in method.modules():
        if not isinstance(part, FrozenTeacher) or part.checkpoint is None:
            continue
        if not Path(part.checkpoint).exists() and (root / part.checkpoint).exists():
            part.checkpoint = str(root / part.checkpoint)


class _Builder(ConfigCLI):
    """Builds what a config describes and runs nothing."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return one that stands by."""
        return Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip

    def test(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Do nothing."""


def _build(config: Path, data_dir: str | None) -> _Builder:
    check_yaml(config)
    where = [] if data_dir is None else [f"--data.data_dir={data_dir}"]
    return _Builder(["test", "--config", str(config), *_ANYWHERE, *where])
