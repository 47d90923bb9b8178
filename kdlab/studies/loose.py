"""Runs that belong to no study, as results like those of one.

Runs of equal configs but for the seed are one cell. Runs that were tested in different ways, or trained on other data,
are results of their own: one table cannot hold both.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from kdlab.errors import IntegrityError
from kdlab.run.science import science
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.results import ACCURACY, Results, Row, read_row

METRICS = (ACCURACY, "student.test.nll", "student.test.ece")
SEED = re.compile(r"-seed\d+(-\d+)?$")  # as `fit` names runs


@dataclass(frozen=True)
class _Found:
    """A run and what decides its weights, apart from the seed."""

    row: Row
    config: str

    @property
    def name(self) -> str:
        """The run's name without its seed."""
        return SEED.sub("", printable(str(self.row.result.get("name", self.row.run.id))))


def read_runs(folders: Sequence[Path]) -> list[Results]:
    """Read finished runs, one `Results` for each protocol.

    Raises:
        UsageError: if a run was not tested.
        IntegrityError: if a file of a run cannot be read.
    """
    above = common_folder(folders)
    protocols: dict[str, list[_Found]] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        found = _read(folder, printable(folder.relative_to(above).as_posix()))
        protocols.setdefault(json.dumps(found.row.protocol), []).append(found)
    return [_results(found, above) for found in protocols.values()]


def common_folder(folders: Sequence[Path]) -> Path:
    """The folder that all of these lie in."""
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders]))


def printable(name: str) -> str:
    """A name as text: folders may have bytes that are no UTF-8, which no file of ours can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _read(folder: Path, name: str) -> _Found:
    run = PlannedRun(name, "student", name, {}, 0, (), ())
    row = read_row(run, folder, (ACCURACY,))
    metrics = {key: value for key in METRICS if (value := row.number(key)) is not None}
    seed = row.result.get("seed")
    run = replace(run, seed=seed if isinstance(seed, int) else 0)
    return _Found(replace(row, run=run, metrics=metrics), _config(folder))


def _config(folder: Path) -> str:
    """What decides the weights, apart from the seed; the folder itself where its config is gone."""
    path = folder / "config.yaml"
    if not path.is_file():
        return str(folder)
    try:
        content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return json.dumps({**science(content), "seed_everything": None}, sort_keys=True, default=str)
    except (ValueError, AttributeError, yaml.YAMLError) as error:
        raise IntegrityError(f"{path} cannot be read; it is the config that the run has written") from error


def _results(runs: Sequence[_Found], above: Path) -> Results:
    cells: dict[str, dict[int, Row]] = {}
    notes = []
    for found in runs:
        seeds, row = cells.setdefault(found.config, {}), found.row
        before = seeds.get(row.run.seed)
        if before is not None:  # the same experiment twice is no second sample
            row, old = (before, row) if before.finished > row.finished else (row, before)
            notes.append(f"{old.run.id} is left out: {row.run.id} has the same config and seed, and is newer.")
        seeds[row.run.seed] = row
    names = _names(runs)
    rows = tuple(
        replace(row, run=replace(row.run, variant=names[config])) for config, seeds in cells.items()
        for _, row in sorted(seeds.items())
    )  # fmt: skip
    metrics = tuple(metric for metric in METRICS if all(metric in row.metrics for row in rows))
    plan = Plan(f"{printable(above.name)}: {rows[0].protocol['name']}", "", metrics, (), tuple(row.run for row in rows))
    return Results(above, plan, rows, (), (), tuple(notes))


def _names(runs: Sequence[_Found]) -> dict[str, str]:
    """Config -> a name of its own: that of its first run, with a number where configs share one."""
    names: dict[str, str] = {}
    for found in runs:
        if found.config not in names:
            same = sum(name == found.name or name.startswith(f"{found.name} (") for name in names.values())
            names[found.config] = f"{found.name} ({same + 1})" if same else found.name
    return names
