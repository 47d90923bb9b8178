"""What is looked at in a parsed config before anything is built: numbers nobody means, classes that are not the data's.

A config here is jsonargparse's Namespace of one verb.
"""

import inspect
import math
import os
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from kdlab.config_parts import LINKED, NetworkSlot, import_class, network_slots, sizes_from_data
from kdlab.errors import UsageError

LONGEST = 200  # bytes of a folder's name: file systems take 255, and we append to it
NODE_VARIABLES = {"NODE_RANK", "GROUP_RANK", "SLURM_NODEID", "OMPI_COMM_WORLD_RANK", "LSB_JOBID"}  # of launchers
LAUNCHED = {"RANK": 10**6, "LOCAL_RANK": 10**6, "WORLD_SIZE": 10**6, "MASTER_PORT": 65535}
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
STRATEGY_CLASSES = ("DDPStrategy", "SingleDeviceStrategy")
MOST_EPOCHS = 1_000_000  # the longest published distillation ("patient and consistent", 2022) had as many

# what Lightning takes without a look and divides by later, or reads as none
LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "log_every_n_steps": 0}


def check_config(config: Namespace) -> None:
    """Refuse what Lightning takes and nobody means, and networks that contradict the data.

    Raises:
        UsageError: for the first such value.
    """
    for key in ("experiment", "name"):
        place = Path(config[key])
        if place.is_absolute() or ".." in place.parts:
            raise UsageError(f"{key} is {place}, which leads out of runs_dir; set --runs_dir to write elsewhere")
        too_long = any(len(os.fsencode(part)) > LONGEST for part in place.parts)
        if too_long or not place.parts or not config[key].isprintable():
            raise UsageError(
                f"{key} is {config[key][:LONGEST]!r}, which is no name of a folder; use letters, digits and - _ . "
                f"({LONGEST} bytes at most)"
            )
    for section in ("model", "data", "trainer"):
        check_values(config[section], section)
    epochs = config.trainer.max_epochs
    if epochs is not None and not 1 <= epochs <= MOST_EPOCHS:
        raise UsageError(f"trainer.max_epochs is {epochs}, but a run has 1 to {MOST_EPOCHS:,} epochs")
    if config.trainer.val_check_interval not in (None, 1.0):
        raise UsageError(
            f"trainer.val_check_interval is {config.trainer.val_check_interval}, but kdlab validates between epochs, "
            "where a run can be continued exactly; use trainer.check_val_every_n_epoch"
        )
    for name, least in LEAST.items():
        value = config.trainer[name]
        if value is not None and value < least:
            raise UsageError(f"trainer.{name} is {value}; give {least} or more, or leave it out")
    for name in ("max_steps", "limit_train_batches", "limit_test_batches"):
        if config.trainer[name] == 0:
            raise UsageError(f"trainer.{name} is 0, which leaves nothing to do; give more, or leave it out")
    if config.trainer.fast_dev_run and config.get("ckpt_path"):
        raise UsageError("trainer.fast_dev_run continues no run; leave it out, or leave out --ckpt_path")
    if config.trainer.barebones:
        raise UsageError("trainer.barebones is true, but without loggers and checkpoints no run is kept; leave it out")
    precision = str(config.trainer.precision)
    if precision == "64" or (precision.endswith("-true") and precision != "32-true"):
        raise UsageError(f"trainer.precision is {precision}, but images come in float32; choose bf16-mixed or 32-true")
    if torch.backends.mps.is_available() and config.trainer.accelerator in ("auto", "gpu", "mps"):
        raise UsageError(
            f"trainer.accelerator is {config.trainer.accelerator}, which is MPS here, but the metrics are float64 and "
            "MPS has none; set --trainer.accelerator cpu"
        )
    _check_strategy(config.trainer.strategy)
    data = import_class(config.data.class_path)
    for slot in network_slots(config.model, "model"):
        _check_network(slot, data)


def check_values(node: object, key: str) -> None:
    """Refuse nulls where a class takes none, and numbers that are none, in a part of a config.

    The parser takes null for anything: it means "not given" there.

    Args:
        node: the part.
        key: as the user writes it.

    Raises:
        UsageError: for the first such value.
    """
    if isinstance(node, float) and not math.isfinite(node):
        raise UsageError(f"{key} is {node}, but expected is a finite number")
    if isinstance(node, list):
        for number, item in enumerate(node):
            check_values(item, f"{key}[{number}]")
    if not isinstance(node, Namespace):
        return
    cls = import_class(node.class_path) if "class_path" in node else Trainer if key == "trainer" else None
    for name, value in vars(node.get("init_args", node)).items():
        if value is None and name not in LINKED and isinstance(cls, type) and not _takes_null(cls, name):
            raise UsageError(f"{key}.{name} is null, but {cls.__name__} needs a value; give one, or leave it out")
        check_values(value, f"{key}.{name}")


def _takes_null(cls: type, name: str) -> bool:
    """Whether None may be given for an argument of a class, or of the base class that it is passed on to."""
    for base in inspect.getmro(cls):
        constructor = vars(base).get("__init__")
        if constructor is None or name not in inspect.signature(constructor).parameters:
            continue
        try:
            hint = get_type_hints(constructor).get(name)
        except NameError:  # a type that is imported for the type checker alone
            return True
        default = inspect.signature(constructor).parameters[name].default
        return default is None or hint in (None, Any) or type(None) in get_args(hint)
    return True


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


def check_launched(num_nodes: int, world_size: int) -> None:
    """Refuse what would let processes wait for others that never come.

    Raises:
        UsageError: for several nodes without a launcher that says which one this is, or for a launcher's variables that
            are no numbers.
    """
    for name, most in LAUNCHED.items() if world_size > 1 else ():
        value = os.environ.get(name)
        if value is not None and not (value.isdecimal() and int(value) <= most):
            raise UsageError(
                f"{name} is {value!r} in the environment, expected a number up to {most}; unset or mend it"
            )
    if num_nodes > 1 and not NODE_VARIABLES & set(os.environ):
        raise UsageError(
            f"trainer.num_nodes is {num_nodes}, but nothing says which node this is; start the processes with "
            "torchrun or srun, or set NODE_RANK, MASTER_ADDR and MASTER_PORT on each node"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that torch or numpy cannot take.

    Raises:
        UsageError: if it is none.
    """
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UsageError(f"seed_everything is {seed}, but it must be an integer of 0 or more, below 2^32")


def _check_network(slot: NetworkSlot, data: type) -> None:
    """Refuse classes or channels that were given and are not the data's: a link would replace them without a word."""
    network = import_class(slot.config.class_path)
    parameters = inspect.signature(network).parameters
    for name, wanted in sizes_from_data(slot, data).items():
        given = slot.config.init_args[name]
        if given not in (wanted, parameters[name].default):
            raise UsageError(
                f"{network.__name__} is given {name}: {given}, but {data.__name__} has {wanted}; "
                f"leave {slot.key}.init_args.{name} out"
            )
