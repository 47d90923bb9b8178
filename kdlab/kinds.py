"""The kinds of parts that a config can name, and the public classes of each."""

import importlib
from typing import NamedTuple


class Kind(NamedTuple):
    """Where the classes of a kind are."""

    module: str
    bases: tuple[str, ...] = ()  # of what a config can name, where the module has other public classes too
    short_names: bool = True  # otherwise a config names the module too


KINDS = {
    "methods": Kind("kdlab.methods"),
    "losses": Kind("kdlab.losses"),
    "teachers": Kind("kdlab.teachers"),
    "models": Kind("kdlab.models", short_names=False),
    "data": Kind("kdlab.data", ("ImageData", "Augmentation", "Mixing")),
    "profilers": Kind("kdlab.profiling", ("Reporter",)),
}


def classes(kind: Kind) -> list[type]:
    """Return the public classes of a kind by name, its base classes among them."""
    module = importlib.import_module(kind.module)
    bases = tuple(getattr(module, base) for base in kind.bases) or object
    return [cls for cls in (getattr(module, name) for name in sorted(module.__all__)) if issubclass(cls, bases)]
