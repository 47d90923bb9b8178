"""Results as plain data, for JSON."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from kdlab.analysis.confusion import ConfusedPair


def as_plain_data(value: Any) -> Any:  # noqa: ANN401 (any nesting of results)
    """Return results as dicts, lists, numbers, strings and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_plain_data(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, ConfusedPair):
        return as_plain_data(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): as_plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain_data(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
