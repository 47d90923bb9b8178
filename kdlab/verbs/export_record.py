"""What stands beside an exported file: how close it is, how fast, and what made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kdlab.run.environment import describe_environment
from kdlab.verbs.export_formats import ExportFormat
from kdlab.verbs.export_speed import Latency
from kdlab.verbs.exporting import Parity, describe
from kdlab.verbs.loaded import LoadedRun


def record(
    run: LoadedRun,
    file_format: ExportFormat,
    path: Path,
    parity: Parity,
    tolerance: float,
    latency: Sequence[Latency],
    undefined: Mapping[str, str],
) -> dict[str, Any]:
    """Return, as JSON values, all that is known of the file at `path`; ``undefined``: what was not measured -> why."""
    environment = describe_environment(torch.device("cpu"))
    environment["versions"] |= {name: version(name) for name in file_format.packages}
    return {
        "format": 1,
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "opset": file_format.opset(path),
        "parity": asdict(parity) | {"tolerance": tolerance},
        "latency": [asdict(row) for row in latency],
        "undefined": dict(undefined),
        "metadata": describe(run),
        "environment": environment,
    }
