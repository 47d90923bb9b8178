"""The plan: every run of a study with the hash of what it computes, checked by the real parser before anything runs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdlab.atomic import write_text
from kdlab.errors import UsageError
from kdlab.studies.published import Published
from kdlab.studies.sections import Settings
from kdlab.studies.study import Comparison, Study, Teacher, Variant
from kdlab.studies.taught import Trained, recipes, with_teachers

FORMAT = 1
ID_LENGTH = 16  # hexadecimal digits: 64 bits
PLAN_FILE = "study.json"
# what all runs of one table must share: other values are another protocol
PROTOCOL = ("val_fraction", "split_seed")

Resolve = Callable[[Sequence[str]], Mapping[str, Any]]  # arguments of `fit` -> what decides the weights


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        id: hash of what it computes; the name of its folder.
        role: a teacher is trained once and is no cell of the tables.
        variant: name of the variant or teacher.
        values: grid key -> value.
        seed: of the run.
        arguments: of ``fit``, without the place of the run; ``@ID`` stands for the weights of another run.
        needs: ids of the runs that must be done before.
    """

    id: str
    role: Literal["teacher", "student"]
    variant: str
    values: Settings
    seed: int
    arguments: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def label(self) -> str:
        """As it is called in messages: ``distilled, alpha 0.5, seed 3``."""
        return ", ".join([cell_label(self.variant, self.values), f"seed {self.seed}"])


@dataclass(frozen=True)
class Plan:
    """A study as it is run: what `study.json` holds."""

    name: str
    question: str
    metrics: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    runs: tuple[PlannedRun, ...]
    published: tuple[Published, ...] = ()

    @property
    def students(self) -> tuple[PlannedRun, ...]:
        """The runs that the tables are made of."""
        return tuple(run for run in self.runs if run.role == "student")

    def write(self, folder: Path) -> None:
        """Write it beside its runs."""
        write_text(folder / PLAN_FILE, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read the plan of a study's folder.

        Raises:
            UsageError: if there is none.
        """
        try:
            content = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
            runs = [{**run, "arguments": tuple(run["arguments"]), "needs": tuple(run["needs"])}
                    for run in content["runs"]]  # fmt: skip
            return cls(
                content["name"],
                content["question"],
                tuple(content["metrics"]),
                tuple(
                    Comparison(one["of"], one["against"], tuple(one.get("by", ()))) for one in content["comparisons"]
                ),
                tuple(PlannedRun(**run) for run in runs),
                tuple(Published(**one) for one in content.get("published", ())),
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(
                f"{folder} is no folder of a study: it has no readable {PLAN_FILE}; give runs/studies/NAME"
            ) from error


def cell_label(variant: str, values: Settings) -> str:
    """A cell in words: the variant and the last part of each grid key with its value."""
    return ", ".join([variant, *(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())])


def make_plan(study: Study, resolve: Resolve) -> Plan:
    """Expand a study into its runs.

    Args:
        study: as its file says.
        resolve: parses arguments of ``fit`` and returns what decides the weights.

    Raises:
        UsageError: for a key or value that the parser refuses, a comparison of cells that do not exist, a teacher that
            is trained nowhere in the study, or variants that would not be tested alike.
    """
    runs: list[PlannedRun] = []
    teachers: dict[str, Trained] = {}
    for teacher in study.teachers:
        cell, science = _cell(study, teacher, {}, teacher.settings, (teacher.seed,), teachers, resolve)
        runs += cell
        teachers[teacher.name] = Trained(cell[0].id, science["model"].get("init_args", {}).get("student"))
    first: tuple[str, Settings] | None = None
    for variant in study.variants:
        for values in _combinations(variant):
            settings = variant.settings_at(values)
            cell, science = _cell(study, variant, values, settings, study.seeds, teachers, resolve)
            runs += cell
            label = cell_label(variant.name, values)
            first = first or (label, science)
            _check_same_protocol(first, (label, science))
    used = {need for run in runs for need in run.needs}
    idle = [run.variant for run in runs if run.role == "teacher" and run.id not in used]
    if idle:
        raise UsageError(f"study {study.name}: nobody learns from teacher {idle[0]}; set a checkpoint to @{idle[0]}")
    plan = Plan(study.name, study.question, study.metrics, study.comparisons, tuple(runs), study.published)
    for comparison in plan.comparisons:
        compared_cells(plan, comparison)
    return plan


def cells(plan: Plan) -> dict[str, tuple[str, Settings]]:
    """The cells of the tables: label -> variant and grid values."""
    return {cell_label(run.variant, run.values): (run.variant, run.values) for run in plan.students}


def compared_cells(plan: Plan, comparison: Comparison) -> list[tuple[str, str]]:
    """Labels of the cells that a comparison compares, each with that of the cell it is compared with.

    Raises:
        UsageError: if they do not exist, or `against` fits several.
    """
    everything = {label: {"variant": variant, **values} for label, (variant, values) in cells(plan).items()}
    pairs = []
    for label, cell in everything.items():
        if comparison.of.items() <= cell.items() and all(key in cell for key in comparison.by):
            wanted = {**comparison.against, **{key: cell[key] for key in comparison.by}}
            against = _the_only(plan, everything, wanted)
            pairs += [(label, against)] if label != against else []
    if not pairs:
        what = f"{dict(comparison.of)} by {comparison.by[0]}" if comparison.by else str(dict(comparison.of))
        other = comparison.against if comparison.by else _the_only(plan, everything, comparison.against)
        raise UsageError(
            f"study {plan.name}: a comparison is of {what}, which is no cell other than {other}; "
            f"name a variant or grid values, for example: {next(iter(everything.values()))}"
        )
    return pairs


def _the_only(plan: Plan, everything: Mapping[str, Settings], wanted: Settings) -> str:
    """Label of the one cell with these values."""
    found = [label for label, cell in everything.items() if wanted.items() <= cell.items()]
    if len(found) != 1:
        which = f"{len(found)} cells ({'; '.join(found[:3])} ...)" if found else "no cell"
        raise UsageError(
            f"study {plan.name}: a comparison is against {dict(wanted)}, which is {which}; "
            f"name variant and grid values of one, for example: {next(iter(everything.values()))}"
        )
    return found[0]


def _combinations(variant: Variant) -> Iterator[Settings]:
    for values in itertools.product(*variant.grid.values()):
        yield dict(zip(variant.grid, values, strict=True))


def _cell(
    study: Study,
    part: Variant | Teacher,
    values: Settings,
    settings: Settings,
    seeds: Sequence[int],
    teachers: Mapping[str, Trained],
    resolve: Resolve,
) -> tuple[list[PlannedRun], Settings]:
    """The runs of one cell, one per seed, and what they compute with seed 0."""
    where = f"study {study.name}, {cell_label(part.name, values)}"
    settings = {**study.settings, **settings}
    if "seed_everything" in settings:
        raise UsageError(f"{where}: seed_everything is set by the study; list the seeds under `seeds`")
    filled, needs = with_teachers(settings, teachers, where)
    arguments = [argument for config in part.base for argument in ("--config", config)]
    arguments += [argument for key, value in filled.items() for argument in (f"--{key}", as_argument(value))]
    try:
        science = resolve([*arguments, "--seed_everything", "0"])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    recipe = next(recipes(science["model"]), None)
    if recipe is not None:
        raise UsageError(
            f"{where}: each run would look for its teacher by the recipe {recipe}; name it under `teachers` "
            "and set its checkpoint to @NAME"
        )
    role: Literal["teacher", "student"] = "teacher" if isinstance(part, Teacher) else "student"
    run = PlannedRun("", role, part.name, values, 0, tuple(arguments), tuple(sorted(needs)))
    return [
        replace(run, id=run_id(science, seed), seed=seed, arguments=(*arguments, "--seed_everything", str(seed)))
        for seed in seeds
    ], science


def run_id(science: Mapping[str, Any], seed: int) -> str:
    """Name what a run computes: equal for equal configs, whatever the study, the machine and the folder."""
    text = json.dumps([science, seed], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def as_argument(value: object) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _check_same_protocol(first: tuple[str, Settings], now: tuple[str, Settings]) -> None:
    """Refuse variants of different data or splits: no table could hold both."""
    (label, before), (other, after) = first, now
    pairs = [("data", before["data"]["class_path"], after["data"]["class_path"])]
    arguments = before["data"]["init_args"], after["data"]["init_args"]
    pairs += [(f"data.{key}", arguments[0].get(key), arguments[1].get(key)) for key in PROTOCOL]
    for key, one, two in pairs:
        if one != two:
            raise UsageError(
                f"{key} is {one} in {label} and {two} in {other}; one table needs one protocol, so make two studies"
            )
