"""What `profile` can be asked about, in one word each: a run, a config, a model file, a network's class."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from torch import Tensor, nn

import kdlab.data
import kdlab.models
from kdlab.close_names import did_you_mean
from kdlab.config_files import find_config
from kdlab.config_parts import import_class, network_slots
from kdlab.errors import KDLabError, UsageError
from kdlab.parser import KDLabParser
from kdlab.parser_messages import brief
from kdlab.run.folder import RunFolder
from kdlab.verbs.loaded import WEIGHTS, LoadedRun, load_config, load_run
from kdlab.yaml_check import check_yaml

log = logging.getLogger(__name__)

CALL = re.compile(r"^([A-Za-z_][\w.]*)(?:\((.*)\))?$", re.DOTALL)  # ResNet20, WRN(depth=16,width=2)
COMMA = re.compile(r",(?=\s*\w+\s*=)")  # between arguments, not inside {img_size: 32, patch_size: 4}


@dataclass(frozen=True)
class Images:
    """What the networks are to read that do not come with data of their own.

    Attributes:
        shape: (C, H, W).
        num_classes: K.
    """

    shape: tuple[int, int, int]
    num_classes: int

    @classmethod
    def of_data(cls, name: str) -> Images:
        """Return those of a data set, which is not read.

        Raises:
            UsageError: if there is no data set of that name.
        """
        public = {known: getattr(kdlab.data, known) for known in kdlab.data.__all__}
        sets = {known: found for known, found in public.items() if hasattr(found, "num_classes")}
        if name not in sets:
            raise UsageError(f"there is no data set {name}{did_you_mean(name, list(sets))}")
        data = sets[name]
        return cls((data.in_channels, data.image_size, data.image_size), data.num_classes)


@dataclass(frozen=True, eq=False)
class Target:
    """A network to profile.

    Attributes:
        name: as the user called it.
        network: in eval mode, on the processor.
        image_shape: (C, H, W) that it reads.
    """

    name: str
    network: nn.Module
    image_shape: tuple[int, int, int]


def find_target(text: str, images: Images) -> Target:
    """Return the network that `text` means, after it has answered one image.

    Args:
        text: a run's folder (or a file of weights in it), a config by file or name, a model file
            (``class_path``, ``init_args``), a class (``ResNet20``, ``WRN(depth=16,width=2)``,
            ``package.module.Class``).
        images: for a model file or a class; a run or config has its own.

    Raises:
        UsageError: if it is none of these, cannot be built, or cannot read the images.
        IntegrityError: if a run's weights are missing or damaged.
    """
    run = _run(text)
    if run is not None:
        target = Target(text, run.method.student, run.data.image_shape)
    else:
        try:
            target = Target(text, _network(text, images), images.shape)
        except UsageError as error:
            raise UsageError(f"{text}: {str(error).removeprefix('network: ')}") from error
    target.network.eval()
    _try(target)
    return target


def _run(text: str) -> LoadedRun | None:
    """The run or config that is meant, if one is."""
    path = Path(text)
    if path.is_dir():
        return _run_in(path)
    if path.suffix in WEIGHTS:
        return load_run(path)
    if _class_named(text) is not None:
        return None
    try:
        file = Path(find_config(text))
    except UsageError:
        raise UsageError(
            f"{text} is no run's folder, config, model file or network{did_you_mean(text, kdlab.models.__all__)}; "
            "python -m kdlab profile --help shows one of each"
        ) from None
    check_yaml(file)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "model" in content:
        return load_config(str(file))
    if "class_path" not in content:
        raise UsageError(f"{file} is no config and no model file: it has neither the key model nor class_path")
    return None


def _run_in(path: Path) -> LoadedRun:
    """The run in a folder; of one that has not ended, the architecture, which is what costs."""
    folder = RunFolder(path)
    if folder.student.is_file() or not folder.config.is_file():
        return load_run(path)
    log.warning("the run in %s has not ended; its network is profiled with random weights", path)
    return load_config(str(folder.config))


def _class_named(text: str) -> type | None:
    """The class that `text` calls, by its name in kdlab.models or its import path."""
    match = CALL.match(text)
    if match is None:
        return None
    name = match[1]
    if "." not in name:
        return getattr(kdlab.models, name) if name in kdlab.models.__all__ else None
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (Exception, SystemExit) as error:  # a module of one's own may raise anything when it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            return None  # there is no such module
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise UsageError(f"{module} cannot be imported: {reason}; mend it, or name another class") from error
    return found if isinstance(found, type) else None


def _network(text: str, images: Images) -> nn.Module:
    """Build a network from a model file or a call, by the command line's own parser."""
    cls = _class_named(text)
    if cls is None:
        return _build([f"--network={find_config(text)}"], images)
    match = CALL.match(text)
    assert match is not None
    arguments = [f"--network={cls.__module__}.{cls.__qualname__}"]
    for part in COMMA.split(match[2]) if match[2] else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{part.strip()} has no name; write arguments as name=value")
        arguments.append(f"--network.{key.strip()}={value.strip()}")
    return _build(arguments, images)


def _build(arguments: list[str], images: Images) -> nn.Module:
    parser = KDLabParser()
    parser.add_subclass_arguments(nn.Module, "network", required=True)
    try:
        config = parser.parse_args(arguments)
    except UsageError as error:
        raise UsageError(str(error).partition("; give --config")[0]) from error
    for slot in network_slots(config.network, "network"):
        _fill_in(slot.config, images)
    try:
        network: nn.Module = parser.instantiate(config).network
    except (ValueError, TypeError, ImportError) as error:
        if isinstance(error, KDLabError):
            raise
        raise UsageError(brief(str(error))) from error
    return network


def _fill_in(config: Namespace, images: Images) -> None:
    """Give a network the images' classes and channels where nothing else was asked for."""
    parameters = inspect.signature(import_class(config.class_path)).parameters
    arguments: Any = config.init_args
    for name, wanted in (("num_classes", images.num_classes), ("in_channels", images.shape[0])):
        if name in parameters and arguments.get(name) in (None, parameters[name].default):
            arguments[name] = wanted


@torch.no_grad()
def _try(target: Target) -> None:
    shape = "x".join(map(str, target.image_shape))
    try:
        logits = target.network(torch.zeros(1, *target.image_shape))
    except KDLabError:
        raise
    except Exception as error:  # any network may be named here, and it can do anything
        raise UsageError(
            f"{target.name} cannot read {shape} images (channels x height x width): "
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}; set --data or --image_shape to what "
            "it reads, or mend its forward"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        what = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"{target.name} returns {what}, but a classifier returns logits [B, K]")
