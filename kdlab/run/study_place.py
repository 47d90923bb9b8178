"""Which experiment, study and variant a run belongs to, read from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from kdlab.run.folder import RunFolder

PLAN_FILE = "study.json"  # of a study, beside its runs


@dataclass(frozen=True)
class StudyPlace:
    """Where a run belongs.

    Attributes:
        experiment: folder of its folder.
        name: of its own folder.
        seed: of the run.
        study: name of the study that it is part of; None for a run of its own.
        variant: of the study.
        values: of the variant's grid.
    """

    experiment: str
    name: str
    seed: int
    study: str | None = None
    variant: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: RunFolder) -> StudyPlace:
        """Read config.yaml of the run, and the study's plan where there is one."""
        config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        own = {"experiment": config["experiment"], "name": folder.path.resolve().name}
        own["seed"] = config["seed_everything"]
        try:
            plan = json.loads((folder.path.resolve().parent / PLAN_FILE).read_text(encoding="utf-8"))
            run = next(run for run in plan["runs"] if run["id"] == own["name"])
            return cls(**own, study=plan["name"], variant=run["variant"], values=run["values"])
        except (OSError, ValueError, LookupError, TypeError, StopIteration):
            return cls(**own)

    @property
    def title(self) -> str:
        """Name of the run for people: its folder's; in a study, where that is a hash, variant, values and seed."""
        if self.variant is None:
            return self.name
        values = [f"{key.rsplit('.', 1)[-1]} {value}" for key, value in self.values.items()]
        return ", ".join([self.variant, *values, f"seed {self.seed}"])

    @property
    def tags(self) -> list[str]:
        """Experiment, study and variant, as far as there are."""
        return list(dict.fromkeys(part for part in (self.experiment, self.study, self.variant) if part))
