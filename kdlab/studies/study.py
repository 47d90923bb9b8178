"""What a study is: variants, grids, teachers, seeds, comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdlab.studies.published import Published
from kdlab.studies.search import Search
from kdlab.studies.sections import Settings

DEFAULT_METRICS = ("student.test.accuracy",)
DEFAULT_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Variant:
    """Configs that are run with every seed and every combination of a grid, or with what a search suggests.

    Attributes:
        name: in tables.
        base: configs by name or path, later ones over earlier ones, as with ``--config``.
        settings: config keys that all its runs share; the value ``@NAME`` is the weights of a teacher of the study.
        grid: config key -> its values, each with each; or a named axis -> the names of its values.
        named: named axis -> name of each value -> the config keys that it sets.
        search: instead of a grid.
    """

    name: str
    base: tuple[str, ...]
    settings: Settings = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Settings]] = field(default_factory=dict)
    search: Search | None = None

    def settings_at(self, values: Settings) -> Settings:
        """All config keys of the cell with these values of the grid or search."""
        settings = dict(self.settings)
        for key, value in values.items():
            settings |= self.named[key][value] if key in self.named else {key: value}
        return settings


@dataclass(frozen=True)
class StudyTeacher:
    """A network that is trained once, before the runs that learn from it.

    Attributes:
        name: ``@NAME`` in the settings and grids of variants, and of later teachers.
        base: as in `Variant`.
        settings: as in `Variant`.
        seed: of its training.
    """

    name: str
    base: tuple[str, ...]
    settings: Settings = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """Cells that are compared with one cell, on equal seeds.

    Attributes:
        of: what the cells have in common: ``variant`` and grid keys -> value; empty for all others.
        against: what singles out the one cell.
        by: grid keys; each cell is compared with the one that has its values of them.
    """

    of: Settings
    against: Settings
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        name: of its folder.
        question: what the study is to answer, in a sentence.
        seeds: of every cell.
        settings: config keys that all runs share, the teachers' too.
        teachers: in the order of training.
        variants: what is compared.
        comparisons: which cells are tested against which.
        metrics: keys of result.json; the first one is drawn.
        published: accuracies of others that cells and teachers are held against.
    """

    name: str
    variants: tuple[Variant, ...]
    question: str = ""
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    settings: Settings = field(default_factory=dict)
    teachers: tuple[StudyTeacher, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    metrics: tuple[str, ...] = DEFAULT_METRICS
    published: tuple[Published, ...] = ()
