"""The shapes that sections of a study file have: keys, lists, names, seeds, grids. All else is refused with its key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kdlab.errors import UsageError

Settings = Mapping[str, Any]  # config key, as on the command line without dashes -> value
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
AXIS = re.compile(r"[A-Za-z]\w*")
# what tables call their columns
TAKEN = (
    "run", "role", "variant", "cell", "runs", "metrics", "seed", "train_seconds", "train_energy_j", "train_macs",
    "teacher_images_answered", "teacher_images_computed", "parameters", "latency_ms_p50", "macs",
    "energy_mj_per_image", "name", "fingerprint", "val_fraction", "split_seed", "selection", "n_tested",
    "git_commit", "kdlab", "torch", "lightning", "torchvision", "numpy", "device", "finished",
)  # fmt: skip


def mapping(value: object, key: str) -> dict[str, Any]:
    """Keys with values; none where nothing is given."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{key} is {value}, but expected are keys with values: {{model.alpha: 0.5}}, for example")
    return value


def sequence(value: object, key: str) -> Sequence[Any]:
    """A list with at least one value."""
    if not isinstance(value, list) or not value:
        raise UsageError(f"{key} is {value}, but expected is a list with at least one value: [0, 1]")
    return value


def only(section: Settings, known: Sequence[str], key: str) -> None:
    """Refuse keys that are not known."""
    for name in section:
        if name not in known:
            raise UsageError(f"{key} has no key {name}; there are: {', '.join(known)}")


def name(value: object, key: str) -> str:
    """A name that a folder may have."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise UsageError(f"{key}: {value} is no name; use letters, digits, `_`, `-` and `.`")
    return value


def seeds(section: object, key: str) -> tuple[int, ...]:
    """Seeds, each once."""
    values = sequence(section, key)
    for seed in values:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UsageError(f"{key} has the value {seed!r}; a seed is a whole number of 0 or more, below 2^32")
    if len(set(values)) < len(values):
        raise UsageError(f"{key} is {list(values)}, with a seed twice; the same run twice is no second sample")
    return tuple(values)


def choices(value: object, key: str) -> tuple[Any, ...]:
    """The values that a config key takes in turn, each once."""
    values = tuple(sequence(value, key))
    for position, one in enumerate(values):
        if one in values[:position]:
            raise UsageError(f"{key} has the value {one} twice; give it once")
        if not isinstance(one, (str, int, float, bool, type(None))):
            raise UsageError(
                f"{key} has the value {one}, but expected are numbers and words; in a grid, give other values a name: "
                "{NAME: {KEY: VALUE}}"
            )
    return values


def count(value: object, key: str) -> int:
    """A number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{key} is {value}, but expected is a whole number of 1 or more")
    return value


def grid(section: object, key: str) -> dict[str, tuple[Any, ...]]:
    """Config key -> its values; a named axis -> the names of its settings."""
    return {
        axis: tuple(values) if isinstance(values, dict) else choices(values, f"{key}.{axis}")
        for axis, values in mapping(section, key).items()
    }


def named_settings(section: object, key: str) -> dict[str, dict[str, Settings]]:
    """The settings behind the named axes of a grid: axis -> name of a value -> config keys and what they are set to."""
    axes = mapping(section, key)
    found: dict[str, dict[str, Settings]] = {}
    for axis, values in axes.items():
        if not isinstance(values, dict):
            continue
        if not AXIS.fullmatch(axis) or axis in TAKEN:
            raise UsageError(
                f"{key}.{axis}: values with names belong to an axis with a name of its own, which is neither a config "
                "key nor a column of the tables: pair"
            )
        if not values:
            raise UsageError(f"{key}.{axis} has no value; give each one a name: {{NAME: {{KEY: VALUE}}}}")
        found[axis] = {
            name(value, f"{key}.{axis}"): mapping(settings, f"{key}.{axis}.{value}")
            for value, settings in values.items()
        }
        for other in axes:
            if any(other in settings for settings in found[axis].values()):
                raise UsageError(f"{key} has {other} twice, as an axis and within {axis}; leave one out")
    return found
