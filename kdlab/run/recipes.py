"""Teachers that are not there yet: train them by their recipe, once, before the student starts."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from filelock import FileLock, Timeout
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from kdlab.config_files import find_config
from kdlab.errors import IntegrityError, KDLabError, UsageError
from kdlab.run.folder import RunFolder
from kdlab.run.requeue import REQUEUE_SIGNAL, under_slurm
from kdlab.run.science import differences, science
from kdlab.run.signals import handling
from kdlab.teachers import FrozenTeacher
from kdlab.weights import read_card

log = logging.getLogger(__name__)

# a recipe runs in a process of its own and must not think that it is a rank of its parent's job
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
                  "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")  # fmt: skip
TRACKED = ("WANDB_RUN_ID", "WANDB_SWEEP_ID")  # nor that it is the run of an agent of W&B


def provide_teachers(method: nn.Module, parser: ArgumentParser, config: Namespace, rehearsal: bool) -> None:
    """Make sure that all teachers of `method` with a recipe are there; in a rehearsal untrained ones stand in.

    Args:
        method: with its teachers, however deep.
        parser: of the command line, which reads the recipes.
        config: of the student's run; data folder, device and precision hold for the teacher's too.
        rehearsal: whether only a few batches are asked for.

    Raises:
        KDLabError: as `provide_teacher`.
    """
    for teacher in method.modules():
        if not isinstance(teacher, FrozenTeacher) or teacher.recipe is None or teacher.ready:
            continue
        if rehearsal and not Path(str(teacher.checkpoint)).exists():
            log.warning("rehearsal of a few batches: the teacher %s is missing, an untrained one stands in",
                        teacher.checkpoint)  # fmt: skip
            teacher.use_untrained()
            continue
        # one device, whatever the student uses: batch_size is per process, so another number is another recipe
        options = ["--trainer.accelerator", config.trainer.accelerator, "--trainer.devices", "1"]
        options += ["--trainer.precision", str(config.trainer.precision or "32-true")]
        if "data_dir" in config.data.init_args:
            options += ["--data.data_dir", config.data.init_args.data_dir]
        provide_teacher(teacher, _decided(teacher.recipe, parser), options)


def _decided(recipe: str, parser: ArgumentParser, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a recipe decides about the weights; `above` are the recipes whose teachers it trains."""
    path = find_config(recipe)
    chain = (*above, str(Path(path).resolve()))
    if chain[-1] in above:
        names = " -> ".join(Path(name).name for name in chain[above.index(chain[-1]) :])
        raise UsageError(f"the teacher's recipe leads back to itself ({names}); give the last teacher no recipe")
    parsed = parser.parse_args(["fit", "--config", path])
    decided = science(yaml.safe_load(parser.dump(parsed, skip_unset=False))["fit"])
    for inner in recipes_in(decided["model"]):  # a teacher's own teacher: its recipe must not have changed either
        theirs = _decided(inner["recipe"], parser, chain)
        if Path(inner["checkpoint"]).exists():
            check_recipe(Path(inner["checkpoint"]), theirs, inner["recipe"])
    return decided


def provide_teacher(teacher: FrozenTeacher, recipe: Mapping[str, Any], options: list[str]) -> None:
    """Make sure that the checkpoint of `teacher` is there and is what its recipe makes.

    Several processes may ask for the same teacher: one trains it, the others wait. A training that was killed
    goes on where it was.

    Args:
        teacher: has a checkpoint and a recipe.
        recipe: what the recipe decides about the weights (`science` of its resolved config).
        options: command-line options of the student's run that hold for the teacher's too (data folder, device).

    Raises:
        UsageError: if the checkpoint is no place where a run writes its student.
        IntegrityError: if it is no file, or was made by another recipe.
        KDLabError: if the training fails; with its exit code.
    """
    assert teacher.checkpoint is not None
    checkpoint = Path(teacher.checkpoint)
    folder = RunFolder(checkpoint.parent)
    if checkpoint.exists() and not checkpoint.is_file():
        raise IntegrityError(f"the teacher's checkpoint is {checkpoint}, which is no file; name one")
    elsewhere = checkpoint.name != folder.student.name or len(checkpoint.parts) < 3
    if elsewhere and not checkpoint.exists():
        raise UsageError(
            f"the teacher's checkpoint is {checkpoint}, but its recipe {teacher.recipe} writes "
            f"<runs_dir>/<experiment>/<name>/{folder.student.name}; set checkpoint to such a "
            "path, or recipe: null if it is not to be trained"
        )
    checkpoint.parent.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(checkpoint.parent.with_name(f".{checkpoint.parent.name}.recipe.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("the teacher %s is being trained by another process; waiting for it", checkpoint)
        lock.acquire()
    try:
        if not checkpoint.exists():
            _train(teacher, folder, options)
    finally:
        lock.release()
    check_recipe(checkpoint, recipe, str(teacher.recipe))


def _train(teacher: FrozenTeacher, folder: RunFolder, options: list[str]) -> None:
    log.info(
        "the teacher %s is not there yet: training it first, by %s, once for all runs. To use another one, "
        "set model.teacher.init_args.checkpoint", teacher.checkpoint, teacher.recipe,
    )  # fmt: skip
    path = folder.path
    command = [sys.executable, "-m", "kdlab", "fit", "--config", str(teacher.recipe)]
    command += ["--runs_dir", str(path.parent.parent), "--experiment", path.parent.name, "--name", path.name, *options]
    if folder.last.exists():
        command += ["--ckpt_path", "last"]
    environment = {name: value for name, value in os.environ.items() if name not in (*RANK_VARIABLES, *TRACKED)}
    code = _run(command, environment)
    if code != 0:
        error = KDLabError(
            f"the recipe {teacher.recipe} of the teacher failed (exit code {code}); its message is above"
        )
        error.exit_code = code if code > 0 else 128 - code
        raise error
    log.info("the teacher is trained; now the student")


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run the command to its end; it ends with us when we are told to stop, and puts SLURM's job into the queue.

    In a group of its own: a signal to ours, as of Ctrl-C or `timeout`, would reach it twice, and the second one kills.
    """
    with subprocess.Popen(command, env=environment, process_group=0) as process:

        def stop(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        numbers = (signal.SIGTERM, signal.SIGINT, *((REQUEUE_SIGNAL,) if under_slurm() else ()))
        try:
            with handling(numbers, stop):
                return process.wait()
        finally:
            process.terminate()


def check_recipe(checkpoint: Path, recipe: Mapping[str, Any], name: str) -> None:
    """Stop when the checkpoint was made by another recipe.

    The arithmetic is not compared: overlays choose it, for the teacher as for its student.

    Args:
        checkpoint: weights with a card.
        recipe: what the recipe decides about the weights now.
        name: of the recipe.

    Raises:
        IntegrityError: with the differences.
    """
    trained_by = read_card(checkpoint).get("config")
    if trained_by is None:
        log.warning("%s does not say how it was trained; it is taken as it is, whatever %s says", checkpoint, name)
        return
    changes = differences(_without_precision(trained_by), _without_precision(recipe))
    if changes:
        raise IntegrityError(
            f"the recipe {name} has changed since the teacher {checkpoint} was trained: {'; '.join(changes)}. "
            "Restore the recipe, set model.teacher.init_args.recipe to null to keep this teacher, or set checkpoint to "
            "another path, where a new one is trained"
        )


def recipes_in(node: object) -> Iterator[Mapping[str, str]]:
    """The arguments of all teachers with a recipe in a part of a resolved config, however deep."""
    if isinstance(node, Mapping):
        if node.get("recipe") and node.get("checkpoint"):
            yield node
        for value in node.values():
            yield from recipes_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from recipes_in(value)


def _without_precision(recipe: Mapping[str, Any]) -> dict[str, Any]:
    trainer = {key: value for key, value in recipe.get("trainer", {}).items() if key != "precision"}
    return {**recipe, "trainer": trainer}
