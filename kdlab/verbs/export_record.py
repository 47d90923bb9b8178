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


def main_figures(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what belongs into the run's result: the file, how close it is, its latency by engine and batch size."""
    latency: dict[str, dict[str, Any]] = {}
    for row in record["latency"]:
        figures = {name: value for name, value in row.items() if name.startswith("latency_")}
        latency.setdefault(row["engine"], {})[f"batch_{row['batch_size']}"] = figures
    parity = record["parity"]
    return {
        "file": str(path),
        "size_bytes": record["size_bytes"],
        "sha256": record["sha256"],
        "max_difference": parity["max_difference"],
        "same_class": parity["same_class"],
        "images": parity["images"],
        "latency": latency,
        "undefined": record["undefined"],
    }
