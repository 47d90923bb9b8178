"""The study file: one screen of YAML, read and checked for its shape.

Whether the keys and values of its runs make sense is for the real parser to say: see `kdlab.studies.planner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from kdlab.errors import UsageError
from kdlab.studies.published import read_published
from kdlab.studies.quick import made_quick
from kdlab.studies.search import read_search
from kdlab.studies.sections import Settings, grid, mapping, name, named_settings, only, seeds, sequence
from kdlab.studies.study import DEFAULT_METRICS, DEFAULT_SEEDS, Comparison, Study, StudyTeacher, Variant
from kdlab.yaml_check import check_yaml


def read_study(path: Path, quick: bool = False) -> Study:
    """Read a study file.

    Args:
        path: of the file.
        quick: make it small, as its section ``quick`` says, and append ``-quick`` to its name.

    Raises:
        UsageError: for the first thing that is wrong, with its key.
    """
    content = mapping(yaml.safe_load(path.read_text(encoding="utf-8")), f"{path}")
    known = ("name", "question", "seeds", "set", "teachers", "variants", "comparisons", "metrics", "published", "quick")
    only(content, known, str(path))
    teachers = tuple(_teacher(key, value) for key, value in mapping(content.get("teachers"), "teachers").items())
    variants = tuple(_variant(key, value) for key, value in mapping(content.get("variants"), "variants").items())
    if not variants:
        raise UsageError(f"{path} has no variants; give at least one: a name with `base`, a config")
    study = Study(
        name=name(content.get("name", path.stem), "name"),
        question=str(content.get("question", "")),
        seeds=seeds(content.get("seeds", list(DEFAULT_SEEDS)), "seeds"),
        settings=mapping(content.get("set"), "set"),
        teachers=teachers,
        variants=variants,
        comparisons=tuple(
            _comparison(item, f"comparisons[{number}]") for number, item in enumerate(_comparisons(content))
        ),
        metrics=tuple(map(str, sequence(content.get("metrics", list(DEFAULT_METRICS)), "metrics"))),
        published=read_published(
            _included(content.get("published"), path),
            {variant.name: variant.grid for variant in variants},
            [teacher.name for teacher in teachers],
        ),
    )
    searched = {variant.name for variant in variants if variant.search}
    for one in study.published:
        if one.role == "student" and one.variant in searched:
            raise UsageError(f"published: variant {one.variant} has a search, so no cell is known to belong to the "
                             "number; give it a grid")  # fmt: skip
    small = made_quick(study, content.get("quick"), path) if quick or content.get("quick") is not None else study
    return small if quick else study


def _comparisons(content: Settings) -> Sequence[object]:
    section = content.get("comparisons") or []
    if not isinstance(section, list):
        raise UsageError(f"comparisons is {section}, but expected is a list: [{{of: VARIANT, against: VARIANT}}]")
    return section


def _included(section: object, path: Path) -> object:
    """A section, or the content of the file that stands for it, relative to the study file."""
    if not isinstance(section, str):
        return section
    file = path.parent / section
    if not file.is_file():
        raise UsageError(f"published: there is no file {file}; give its path from the folder of {path}")
    check_yaml(file)
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _variant(title: str, section: object) -> Variant:
    key = f"variants.{title}"
    part = mapping(section, key)
    only(part, ("base", "set", "grid", "search"), key)
    axes = part.get("grid"), f"{key}.grid"
    search = read_search(part["search"], f"{key}.search") if "search" in part else None
    if part.get("grid") and search:
        raise UsageError(f"{key} has both grid and search; put the grid's keys into search.ranges, as lists")
    settings = mapping(part.get("set"), f"{key}.set")
    return Variant(name(title, key), _base(part, key), settings, grid(*axes), named_settings(*axes), search)


def _teacher(title: str, section: object) -> StudyTeacher:
    key = f"teachers.{title}"
    part = mapping(section, key)
    only(part, ("base", "set", "seed"), key)
    (seed,) = seeds([part.get("seed", 0)], f"{key}.seed")
    return StudyTeacher(name(title, key), _base(part, key), mapping(part.get("set"), f"{key}.set"), seed)


def _comparison(section: object, key: str) -> Comparison:
    part = mapping(section, key)
    only(part, ("of", "against", "by"), key)
    if "against" not in part:
        raise UsageError(f"{key} has no `against`; name the variant, or variant and grid values, to compare with")
    of, against = (
        {"variant": value} if isinstance(value, str) else mapping(value, f"{key}.{side}")
        for side, value in (("of", part.get("of")), ("against", part["against"]))
    )
    by = part.get("by", [])
    keys = [by] if isinstance(by, str) else by
    if not isinstance(keys, list) or not all(isinstance(one, str) for one in keys):
        raise UsageError(f"{key}.by is {by}; name the grid keys that both sides share: pair")
    return Comparison(of, against, tuple(keys))


def _base(part: Settings, key: str) -> tuple[str, ...]:
    base = part.get("base")
    names = [base] if isinstance(base, str) else base
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise UsageError(f"{key}.base is {base}; give a config, or a list of configs: digits/logit_matching")
    return tuple(names)
