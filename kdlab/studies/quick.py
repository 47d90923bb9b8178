"""The small version of a study, for ``--quick``: fewer seeds and grid values, shorter runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdlab.errors import UsageError
from kdlab.studies.published import Published
from kdlab.studies.sections import Settings, count, grid, mapping, only, seeds
from kdlab.studies.study import Study, StudyTeacher, Variant


def made_quick(study: Study, section: object, path: Path) -> Study:
    """Make a study small, as the section ``quick`` of its file says.

    Raises:
        UsageError: for the first thing that is wrong with the section, or if there is none.
    """
    if section is None:
        raise UsageError(f"{path} has no section quick, so it cannot be run with --quick; add one, or leave it out")
    small = mapping(section, "quick")
    only(small, ("seeds", "set", "grid", "trials"), "quick")
    settings, values = mapping(small.get("set"), "quick.set"), grid(small.get("grid"), "quick.grid")
    trials = count(small["trials"], "quick.trials") if "trials" in small else None
    if trials is not None and all(variant.search is None for variant in study.variants):
        raise UsageError("quick.trials: no variant has a search; remove it")
    for key in values:
        if all(key not in variant.grid for variant in study.variants):
            raise UsageError(f"quick.grid.{key}: no variant has {key} in its grid; name one that has, or remove it")
        if not isinstance(small["grid"][key], list):
            raise UsageError(
                f"quick.grid.{key} is {small['grid'][key]}, but expected is a list of values: {[*values[key]]}"
            )
    variants = tuple(_shrunk(variant, settings, values, trials) for variant in study.variants)
    teachers = _still_needed(study, variants)
    return replace(
        study,
        name=f"{study.name}-quick",
        seeds=seeds(small["seeds"], "quick.seeds") if "seeds" in small else study.seeds,
        teachers=tuple(replace(teacher, settings={**teacher.settings, **settings}) for teacher in teachers),
        variants=variants,
        comparisons=tuple(
            one
            for one in study.comparisons
            if not any(_is_left_out(side, study, values) for side in (one.of, one.against))
        ),
        published=tuple(one for one in study.published if _is_there(one, variants, teachers)),
    )


def _shrunk(variant: Variant, settings: Settings, values: Mapping[str, tuple[Any, ...]], trials: int | None) -> Variant:
    for key in settings:
        if key in _varied(variant):
            raise UsageError(
                f"quick.set.{key}: variant {variant.name} gives {key} values of its own, which would win; remove it "
                "(quick.grid makes a grid small, quick.trials a search)"
            )
    chosen = {key: values.get(key, whole) for key, whole in variant.grid.items()}
    for key, names in variant.named.items():
        for value in chosen[key]:
            if value not in names:
                raise UsageError(f"quick.grid.{key}: variant {variant.name} has no {value}; it has: {', '.join(names)}")
    search = variant.search
    if search is not None:  # by default one round
        search = replace(search, trials=trials or min(search.trials, search.rounds_of))
    return replace(variant, settings={**variant.settings, **settings}, grid=chosen, search=search)


def _varied(variant: Variant) -> set[str]:
    """The config keys that a grid, a named value of it, or a search sets."""
    named = {key for values in variant.named.values() for settings in values.values() for key in settings}
    return named.union(variant.grid, variant.search.ranges if variant.search else ())


def _still_needed(study: Study, variants: tuple[Variant, ...]) -> tuple[StudyTeacher, ...]:
    """The teachers without those that taught only what a quick study leaves out."""
    before = _mentioned([study.settings, *(one.settings for one in study.teachers), *_settings(study.variants)])
    wanted = _mentioned([study.settings, *_settings(variants)])
    kept = []
    for teacher in reversed(study.teachers):  # a teacher's own teachers come before it
        if teacher.name in wanted or teacher.name not in before:
            kept.append(teacher)
            wanted |= _mentioned(teacher.settings)
    return tuple(reversed(kept))


def _settings(variants: tuple[Variant, ...]) -> list[Settings]:
    """Settings of each variant with each of its grid values, one at a time, and all that a search may choose."""
    at = [(variant, key, value) for variant in variants for key, values in variant.grid.items() for value in values]
    searched = [variant.search.ranges for variant in variants if variant.search is not None]
    return [
        *(variant.settings for variant in variants),
        *(variant.settings_at({key: value}) for variant, key, value in at),
        *({key: list(found) for key, found in ranges.items() if isinstance(found, tuple)} for ranges in searched),
    ]


def _mentioned(node: object) -> set[str]:
    """The NAMEs of all ``@NAME`` in a value."""
    if isinstance(node, (dict, list)):
        parts = node.values() if isinstance(node, dict) else node
        return set().union(*map(_mentioned, parts))
    return {node[1:]} if isinstance(node, str) and node.startswith("@") else set()


def _is_left_out(cell: Settings, study: Study, values: Mapping[str, tuple[Any, ...]]) -> bool:
    """Whether a side of a comparison names a grid value that the study has and its quick version does not."""
    whole = {key: [value for variant in study.variants for value in variant.grid.get(key, ())] for key in values}
    return any(key in values and value not in values[key] and value in whole[key] for key, value in cell.items())


def _is_there(published: Published, variants: tuple[Variant, ...], teachers: tuple[StudyTeacher, ...]) -> bool:
    """Whether a quick study still has what a published number is for."""
    if published.role == "teacher":
        return any(teacher.name == published.variant for teacher in teachers)
    (variant,) = (variant for variant in variants if variant.name == published.variant)
    return all(value in variant.grid[key] for key, value in published.values.items())
