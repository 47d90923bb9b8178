"""Is a file that was read a resume point that a run can go on from? Lightning does not look, and fails anywhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlab.blame import functions_in
from kdlab.errors import IntegrityError, KDLabError

PARTS = {
    "pytorch-lightning_version": str, "epoch": int, "global_step": int, "state_dict": Mapping, "loops": Mapping,
    "callbacks": Mapping, "optimizer_states": list, "lr_schedulers": list,
}  # fmt: skip
WAY_OUT = "continue from another one with --ckpt_path, or leave that out to start a new run"


def check_resume_point(checkpoint: object, path: Path) -> dict[str, Any]:
    """Return what was read from `path`, if it has the parts of a resume point and its numbers can be continued.

    Raises:
        IntegrityError: with what is wrong.
    """
    if not isinstance(checkpoint, dict):
        raise _foreign(path, f"it holds a {type(checkpoint).__name__}")
    for name, kind in PARTS.items():
        if not isinstance(checkpoint.get(name), kind):
            raise _foreign(path, f"its {name} is {_shown(checkpoint.get(name))}")
    counters = checkpoint["loops"].get("fit_loop") or {}
    for name in ("epoch_progress", "epoch_loop.batch_progress"):
        if name not in counters:  # Lightning would start at the beginning, without a word
            raise _foreign(path, f"its loops.fit_loop has no {name}")
    if not checkpoint["optimizer_states"]:
        raise _foreign(path, "it has no state of the optimizer")
    counted = {name: checkpoint[name] for name in ("epoch", "global_step", "loops")}
    for name, value in _leaves(counted):
        if not isinstance(value, int) or value < 0:
            raise _foreign(path, f"its {name} is {_shown(value)}")
    for name, value in _leaves({name: checkpoint[name] for name in ("state_dict", "optimizer_states")}):
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise _foreign(path, f"its {name} is not finite")
    return checkpoint


@contextmanager
def restoring(path: str | None) -> Iterator[None]:
    """Make the file at `path` answer for whatever fails while Lightning restores a run from it.

    Raises:
        IntegrityError: for such an error.
    """
    try:
        yield
    except KDLabError:
        raise
    except Exception as error:
        calls = functions_in(error, "checkpoint_connector.py")
        if path is None or not any(name.startswith(("restore", "_restore", "resume")) for name in calls):
            raise
        raise _foreign(Path(path), " ".join(f"{type(error).__name__}: {error}".split())) from error


def _foreign(path: Path, why: str) -> IntegrityError:
    return IntegrityError(f"checkpoint {path} is no resume point of this run ({why}); {WAY_OUT}")


def _leaves(node: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The values in nested mappings and lists, each with its path."""
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield name, node
        return
    for key, child in children:
        yield from _leaves(child, f"{name}.{key}".lstrip("."))


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
