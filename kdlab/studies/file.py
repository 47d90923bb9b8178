"""The study file: one screen of YAML, read and checked for its shape.

Whether the keys and values of its runs make sense is for the real parser to say: see `kdlab.studies.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from kdlab.errors import UsageError
from kdlab.studies.search import Search, read_search
from kdlab.studies.sections import choices, count, mapping, only, plain_name, sequence

Settings = Mapping[str, Any]  # config key, as on the command line without dashes -> value
DEFAULT_METRICS = ("student.test.accuracy",)
DEFAULT_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Variant:
    """Configs that are run with every seed and every combination of a grid, or with what a search suggests.

    Attributes:
        name: in tables.
        base: configs by name or path, later ones over earlier ones, as with ``--config``.
        settings: config keys that all its runs share; the value ``@NAME`` is the weights of a teacher of the study.
        grid: config key -> its values, each with each.
        search: instead of a grid.
    """

    name: str
    base: tuple[str, ...]
    settings: Settings = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    search: Search | None = None


@dataclass(frozen=True)
class Teacher:
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
    """

    of: Settings
    against: Settings


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
    """

    name: str
    variants: tuple[Variant, ...]
    question: str = ""
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    settings: Settings = field(default_factory=dict)
    teachers: tuple[Teacher, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    metrics: tuple[str, ...] = DEFAULT_METRICS


def read_study(path: Path, quick: bool = False) -> Study:
    """Read a study file.

    Args:
        path: of the file.
        quick: make it small, as its section ``quick`` says, and append ``-quick`` to its name.

    Raises:
        UsageError: for the first thing that is wrong, with its key.
    """
    content = mapping(yaml.safe_load(path.read_text(encoding="utf-8")), f"{path}")
    known = ("name", "question", "seeds", "set", "teachers", "variants", "comparisons", "metrics", "quick")
    only(content, known, str(path))
    study = Study(
        name=plain_name(content.get("name", path.stem), "name"),
        question=str(content.get("question", "")),
        seeds=_seeds(content.get("seeds", list(DEFAULT_SEEDS)), "seeds"),
        settings=mapping(content.get("set"), "set"),
        teachers=tuple(_teacher(key, value) for key, value in mapping(content.get("teachers"), "teachers").items()),
        variants=tuple(_variant(key, value) for key, value in mapping(content.get("variants"), "variants").items()),
        comparisons=tuple(
            _comparison(item, f"comparisons[{number}]") for number, item in enumerate(content.get("comparisons") or [])
        ),
        metrics=tuple(map(str, sequence(content.get("metrics", list(DEFAULT_METRICS)), "metrics"))),
    )
    if not study.variants:
        raise UsageError(f"{path} has no variants; give at least one: a name with `base`, a config")
    if not quick:
        return study
    return _made_quick(study, content.get("quick"), path)


def _made_quick(study: Study, section: object, path: Path) -> Study:
    if section is None:
        raise UsageError(f"{path} has no section quick, so it cannot be run with --quick; add one, or leave it out")
    small = mapping(section, "quick")
    only(small, ("seeds", "set", "grid", "trials"), "quick")
    settings, grid = mapping(small.get("set"), "quick.set"), _grid(small.get("grid"), "quick.grid")
    trials = count(small["trials"], "quick.trials") if "trials" in small else None
    for key in grid:
        if all(key not in variant.grid for variant in study.variants):
            raise UsageError(f"quick.grid.{key}: no variant has {key} in its grid; name one that has, or remove it")
    if trials is not None and all(variant.search is None for variant in study.variants):
        raise UsageError("quick.trials: no variant has a search; remove it")

    def over(part: Settings) -> Settings:
        return {**part, **settings}

    def shrunk(variant: Variant) -> Variant:
        values = {key: grid.get(key, whole) for key, whole in variant.grid.items()}
        search = variant.search
        if search is not None:  # by default one round
            search = replace(search, trials=trials or min(search.trials, search.rounds_of))
        return replace(variant, settings=over(variant.settings), grid=values, search=search)

    return replace(
        study,
        name=f"{study.name}-quick",
        seeds=_seeds(small["seeds"], "quick.seeds") if "seeds" in small else study.seeds,
        teachers=tuple(replace(teacher, settings=over(teacher.settings)) for teacher in study.teachers),
        variants=tuple(shrunk(variant) for variant in study.variants),
    )


def _variant(name: object, section: object) -> Variant:
    key = f"variants.{name}"
    part = mapping(section, key)
    only(part, ("base", "set", "grid", "search"), key)
    grid = _grid(part.get("grid"), f"{key}.grid")
    search = read_search(part["search"], f"{key}.search") if "search" in part else None
    if grid and search:
        raise UsageError(f"{key} has both grid and search; put the grid's keys into search.ranges, as lists")
    settings = mapping(part.get("set"), f"{key}.set")
    return Variant(plain_name(name, key), _base(part, key), settings, grid, search)


def _teacher(name: object, section: object) -> Teacher:
    key = f"teachers.{name}"
    part = mapping(section, key)
    only(part, ("base", "set", "seed"), key)
    (seed,) = _seeds([part.get("seed", 0)], f"{key}.seed")
    return Teacher(plain_name(name, key), _base(part, key), mapping(part.get("set"), f"{key}.set"), seed)


def _comparison(section: object, key: str) -> Comparison:
    part = mapping(section, key)
    only(part, ("of", "against"), key)
    if "against" not in part:
        raise UsageError(f"{key} has no `against`; name the variant, or variant and grid values, to compare with")
    sides = {side: part.get(side) for side in ("of", "against")}
    chosen = {
        side: {"variant": value} if isinstance(value, str) else mapping(value, f"{key}.{side}")
        for side, value in sides.items()
    }
    return Comparison(**chosen)


def _base(part: Settings, key: str) -> tuple[str, ...]:
    base = part.get("base")
    names = [base] if isinstance(base, str) else base
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{key}.base is {base}; give a config, or a list of configs: digits/logit_matching")
    return tuple(names)


def _grid(section: object, key: str) -> Mapping[str, tuple[Any, ...]]:
    return {name: choices(values, f"{key}.{name}") for name, values in mapping(section, key).items()}


def _seeds(section: object, key: str) -> tuple[int, ...]:
    seeds = sequence(section, key)
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UsageError(f"{key} has the value {seed}; a seed is a whole number of 0 or more, below 2^32")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{key} is {list(seeds)}, with a seed twice; the same run twice is no second sample")
    return tuple(seeds)
