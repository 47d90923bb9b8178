"""The shape of what a study file holds: keys, lists and names, each refused with its key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kdlab.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def plain_name(value: object, key: str) -> str:
    """A name of something: of a folder, in a table.

    Raises:
        UsageError: if it is none.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise UsageError(f"{key}: {value} is no name; use letters, digits, `_`, `-` and `.`")
    return value


def mapping(value: object, key: str) -> dict[str, Any]:
    """Keys with values; none where the key is left empty.

    Raises:
        UsageError: if it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(part, str) for part in value):
        raise UsageError(f"{key} is {value}, but expected are keys with values")
    return value


def sequence(value: object, key: str) -> Sequence[Any]:
    """A list with at least one value.

    Raises:
        UsageError: if it is none.
    """
    if not isinstance(value, list) or not value:
        raise UsageError(f"{key} is {value}, but expected is a list with at least one value: [0, 1]")
    return value


def choices(value: object, key: str) -> tuple[Any, ...]:
    """The values that a config key takes in turn, each once.

    Raises:
        UsageError: if it is no such list.
    """
    values = tuple(sequence(value, key))
    for position, one in enumerate(values):
        if one in values[:position]:
            raise UsageError(f"{key} has the value {one} twice; give it once")
        if not isinstance(one, (str, int, float, bool, type(None))):
            raise UsageError(f"{key} has the value {one}; a grid or search takes numbers and names, so make variants")
    return values


def count(value: object, key: str) -> int:
    """A number of things.

    Raises:
        UsageError: if it is no whole number from 1 on.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{key} is {value}, but expected is a whole number of 1 or more")
    return value


def only(section: Mapping[str, Any], known: Sequence[str], key: str) -> None:
    """Look for keys that mean nothing.

    Raises:
        UsageError: for the first one.
    """
    for part in section:
        if part not in known:
            raise UsageError(f"{key} has no key {part}; there are: {', '.join(known)}")
