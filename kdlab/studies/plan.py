"""The plan: every run of a study, as `kdlab.studies.planner` makes it and study.json keeps it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kdlab.atomic import write_text
from kdlab.errors import UsageError
from kdlab.run.study_place import PLAN_FILE
from kdlab.studies.published import Published
from kdlab.studies.sections import Settings
from kdlab.studies.study import Comparison

FORMAT = 1


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
        """The name of the run in messages: ``distilled, alpha 0.5, seed 3``."""
        return ", ".join([cell_label(self.variant, self.values), f"seed {self.seed}"])


@dataclass(frozen=True)
class SearchedVariant:
    """A variant whose cells are the trials of a search.

    Attributes:
        variant: its name.
        maximize: key of result.json that its best trial has the highest mean of.
        trials: that are to be made.
        suggested: the values of each trial that is planned so far; those that are the same are one cell.
        logarithmic: config keys that are drawn on a logarithmic scale.
    """

    variant: str
    maximize: str
    trials: int
    suggested: tuple[Settings, ...]
    logarithmic: tuple[str, ...] = ()

    @property
    def unnamed_best(self) -> str:
        """What stands for its best trial as long as none has finished."""
        return f"{self.variant} (best trial)"


@dataclass(frozen=True)
class Plan:
    """A study as it is run: what `study.json` holds.

    The rounds of a search are planned one by one, when all runs of those before have ended.

    Attributes:
        name: of the study.
        question: that it is to answer.
        metrics: keys of result.json.
        comparisons: pairs of cells to be tested.
        runs: all that are planned so far.
        searches: the variants with a search.
        published: numbers of others, to stand beside ours.
    """

    name: str
    question: str
    metrics: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    runs: tuple[PlannedRun, ...]
    searches: tuple[SearchedVariant, ...] = ()
    published: tuple[Published, ...] = ()

    @property
    def to_come(self) -> int:
        """The most runs that the rounds of searches will have that are not planned yet."""
        seeds = {run.seed for run in self.students}
        return sum(search.trials - len(search.suggested) for search in self.searches) * len(seeds)

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
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
            runs = [{**run, "arguments": tuple(run["arguments"]), "needs": tuple(run["needs"])}
                    for run in content["runs"]]  # fmt: skip
            return cls(
                content["name"],
                content["question"],
                tuple(content["metrics"]),
                tuple(Comparison(one["of"], one["against"], tuple(one.get("by", ())))
                      for one in content["comparisons"]),
                tuple(PlannedRun(**run) for run in runs),
                tuple(SearchedVariant(**{**search, "suggested": tuple(search["suggested"]),
                                         "logarithmic": tuple(search["logarithmic"])})
                      for search in content.get("searches", [])),
                tuple(Published(**one) for one in content.get("published", ())),
            )  # fmt: skip
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{folder} is no folder of a study: it has no readable {PLAN_FILE}; give runs/studies/NAME"
            ) from error


def cell_label(variant: str, values: Settings) -> str:
    """A cell in words: the variant and the end of each grid key with its value."""
    names = short_keys(values)
    return ", ".join([variant, *(f"{names[key]} {value}" for key, value in values.items())])


def short_keys(keys: Collection[str]) -> dict[str, str]:
    """Config keys of one variant, each by as many of its last parts as tell it from the others."""

    def end(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    return {
        key: next(end(key, n) for n in itertools.count(1) if all(end(key, n) != end(o, n) for o in keys if o != key))
        for key in keys
    }


def cells(plan: Plan) -> dict[str, tuple[str, Settings]]:
    """The cells of the tables: label -> variant and grid values."""
    return {cell_label(run.variant, run.values): (run.variant, run.values) for run in plan.students}


def compared_cells(plan: Plan, comparison: Comparison, best: Mapping[str, str]) -> list[tuple[str, str]]:
    """Labels of the cells that a comparison compares, each with that of the cell it is compared with.

    A searched variant takes part with its best trial, which no grid value singles out.

    Args:
        plan: of the study.
        comparison: of the plan.
        best: name of each searched variant -> label of its best trial.

    Raises:
        UsageError: if they do not exist, or `against` fits several.
    """
    everything = {
        best.get(variant, label): {"variant": variant} if variant in best else {"variant": variant, **values}
        for label, (variant, values) in cells(plan).items()
    }
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
