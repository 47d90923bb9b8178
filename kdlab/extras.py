"""Packages that kdlab can do without; each comes with an extra of pyproject.toml."""

import importlib.util

from kdlab.errors import UsageError


def installed(package: str) -> bool:
    """Whether a package, by the name under which it is imported, is there."""
    return importlib.util.find_spec(package) is not None


def require(package: str, extra: str, what_for: str) -> None:
    """See that a package of an extra is there.

    Args:
        package: the name under which it is imported.
        extra: of kdlab, that brings it.
        what_for: what cannot be done without it, for the message.

    Raises:
        UsageError: if it is missing.
    """
    if not installed(package):
        raise UsageError(f"{what_for} needs the package {package}; pip install 'kdlab[{extra}]'")
