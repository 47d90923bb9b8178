"""What is looked at in a parsed config before anything is built: numbers nobody means, classes that are not the data's.

A config here is jsonargparse's Namespace of one verb.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace
from torch import nn

from kdlab.errors import UsageError

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
STRATEGY_CLASSES = ("DDPStrategy", "SingleDeviceStrategy")
MOST_EPOCHS = 1_000_000  # the longest published distillation ("patient and consistent", 2022) had as many


class NetworkSlot(NamedTuple):
    """A network somewhere in the model section of a config."""

    key: str  # as the user writes it
    config: Namespace  # class_path and init_args
    in_list: bool


def check_config(config: Namespace) -> None:
    """Refuse what Lightning takes and nobody means, and networks that contradict the data.

    Raises:
        UsageError: for the first such value.
    """
    for key in ("experiment", "name"):
        place = Path(config[key])
        if place.is_absolute() or ".." in place.parts:
            raise UsageError(f"{key} is {place}, which leads out of runs_dir; set --runs_dir to write elsewhere")
    epochs = config.trainer.max_epochs
    if epochs is not None and not 1 <= epochs <= MOST_EPOCHS:
        raise UsageError(f"trainer.max_epochs is {epochs}, but a run has 1 to {MOST_EPOCHS:,} epochs")
    if config.trainer.val_check_interval not in (None, 1, 1.0):
        raise UsageError(
            f"trainer.val_check_interval is {config.trainer.val_check_interval}, but kdlab validates between epochs, "
            "where a run can be continued exactly; use trainer.check_val_every_n_epoch"
        )
    precision = str(config.trainer.precision)
    if precision.endswith("-true") and precision != "32-true":
        raise UsageError(f"trainer.precision is {precision}, but images come in float32; choose bf16-mixed or 32-true")
    if torch.backends.mps.is_available() and config.trainer.accelerator in ("auto", "mps"):
        raise UsageError(
            f"trainer.accelerator is {config.trainer.accelerator}, which is MPS here, but the metrics are float64 and "
            "MPS has none; set --trainer.accelerator cpu"
        )
    _check_strategy(config.trainer.strategy)
    data = import_class(config.data.class_path)
    for slot in network_slots(config.model, "model"):
        _fit_to_data(slot, data)


def _check_strategy(strategy: str | Namespace) -> None:
    """Refuse strategies under which no process holds the whole student, or the first one does not train itself."""
    name = strategy if isinstance(strategy, str) else strategy.class_path.rpartition(".")[2]
    if name not in (*STRATEGIES, *STRATEGY_CLASSES):
        raise UsageError(
            f"trainer.strategy is {name}, but kdlab trains under ddp (or auto) only: each process holds the whole "
            "student and teacher, of which checkpoints, EMA and tests are made; FSDP and DeepSpeed split them, and "
            "spawned processes do not give the student back. Set --trainer.strategy ddp"
        )


def check_synchronized(device: torch.device, world_size: int, sync_batchnorm: bool) -> None:
    """Refuse batch norm over all processes where PyTorch has none.

    Raises:
        UsageError: on a CPU, with several processes.
    """
    if sync_batchnorm and world_size > 1 and device.type == "cpu":
        raise UsageError(
            "trainer.sync_batchnorm is true, but PyTorch's SyncBatchNorm works on GPUs only; set "
            "--trainer.sync_batchnorm false (each process then normalises by its own images), or train on GPUs"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that torch or numpy cannot take.

    Raises:
        UsageError: if it is none.
    """
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UsageError(f"seed_everything is {seed}, but it must be an integer of 0 or more, below 2^32")


def network_slots(node: object, key: str, in_list: bool = False) -> Iterator[NetworkSlot]:
    """Find the networks in a part of a config: everything that is built with a number of classes."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from network_slots(item, f"{key}[{number}]", in_list=True)
    if not isinstance(node, Namespace) or "class_path" not in node or "init_args" not in node:
        return
    if "num_classes" in node.init_args and issubclass(import_class(node.class_path), nn.Module):
        yield NetworkSlot(key, node, in_list)
    for name, value in vars(node.init_args).items():
        yield from network_slots(value, f"{key}.{name}", in_list)


def import_class(class_path: str) -> type:
    """The class that a config names."""
    module, _, name = class_path.rpartition(".")
    cls: type = getattr(importlib.import_module(module), name)
    return cls


def _fit_to_data(slot: NetworkSlot, data: type) -> None:
    """Refuse classes or channels that were given and are not the data's; fill them in where no link reaches: in lists.

    A link would replace what was given without a word.
    """
    network = import_class(slot.config.class_path)
    parameters = inspect.signature(network).parameters
    arguments: Any = slot.config.init_args
    for name in ("num_classes", "in_channels"):
        given, wanted = arguments.get(name), getattr(data, name, None)
        if given is None or not isinstance(wanted, int) or name not in parameters:
            continue
        if given not in (wanted, parameters[name].default):
            raise UsageError(
                f"{network.__name__} is given {name}: {given}, but {data.__name__} has {wanted}; "
                f"leave {slot.key}.init_args.{name} out"
            )
        if slot.in_list:
            arguments[name] = wanted
