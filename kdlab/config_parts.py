"""The classes and networks that a parsed config names, and the sizes that networks take from the data.

A config here is jsonargparse's Namespace of one verb.
"""

import importlib
import inspect
from collections.abc import Iterator
from typing import NamedTuple

from jsonargparse import Namespace
from torch import nn

LINKED = ("num_classes", "in_channels")  # of networks, filled in from the data when these are built


class NetworkSlot(NamedTuple):
    """A network somewhere in the model section of a config."""

    key: str  # as the user writes it
    config: Namespace  # class_path and init_args
    in_list: bool


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


def classes_in(node: object) -> Iterator[type]:
    """All classes that a part of a config names."""
    if isinstance(node, list):
        for item in node:
            yield from classes_in(item)
    elif isinstance(node, Namespace):
        if "class_path" in node:
            yield import_class(node.class_path)
        for value in vars(node).values():
            yield from classes_in(value)


def import_class(class_path: str) -> type:
    """The class that a config names."""
    module, _, name = class_path.rpartition(".")
    cls: type = getattr(importlib.import_module(module), name)
    return cls


def sizes_from_data(slot: NetworkSlot, data: type) -> dict[str, int]:
    """Return the classes and channels of a network that its config gives and the class of the data decides."""
    taken = inspect.signature(import_class(slot.config.class_path)).parameters
    named = [name for name in LINKED if name in taken and slot.config.init_args.get(name) is not None]
    return {name: getattr(data, name) for name in named if isinstance(getattr(data, name, None), int)}


def fill_in_from_data(config: Namespace) -> None:
    """Give the networks in lists the classes and channels of the data: the parser's links do not reach them there."""
    data = import_class(config.data.class_path)
    for slot in network_slots(config.model, "model"):
        for name, size in sizes_from_data(slot, data).items() if slot.in_list else ():
            slot.config.init_args[name] = size
