"""Where a number was measured: hardware, versions, commit."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kdlab.profiling.isolation import device_name

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "timm", "numpy")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return device, threads, versions and commit, as they are written beside every result."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {"kdlab": _version("kdlab"), **{name: _version(name) for name in PACKAGES}},
        "git_commit": git_commit(),
        "command": _command(),
    }


def _command() -> str:
    """The command line of this process, for a shell."""
    program = Path(sys.argv[0]).name
    start = ["python", "-m", "kdlab"] if program in ("kdlab", "__main__.py") else [program]
    return shlex.join([*start, *sys.argv[1:]])


def git_commit() -> str | None:
    """The commit of the kdlab checkout, with "+changes" if it differs from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        options: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit: str = subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout.strip()
        changes: str = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], **options
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
