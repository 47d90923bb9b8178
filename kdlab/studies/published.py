"""Published accuracies in a study file: whose they are, and how they were chosen among epochs and runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdlab.errors import UsageError
from kdlab.studies.sections import Settings, mapping, only, sequence

# what a source may say of the epoch that it reports -> in the report
EPOCHS = {
    "last": "last epoch",
    "best on test": "best epoch by the test images",
    "not stated": "epoch not stated",
}
Grids = Mapping[str, Mapping[str, Sequence[Any]]]  # variant -> its grid


@dataclass(frozen=True)
class Published:
    """One published test accuracy.

    Attributes:
        role: whether it is of a cell or of a teacher.
        variant: of the study, or the name of the teacher.
        values: grid key -> value, as those of a run.
        accuracy: on the test images, in [0, 1].
        source: where it was copied from.
        epoch: a key of `EPOCHS`.
        runs: that it is the mean of; None where the source does not say.
    """

    role: Literal["teacher", "student"]
    variant: str
    values: Settings
    accuracy: float
    source: str
    epoch: str
    runs: int | None

    @property
    def protocol(self) -> str:
        """Epoch and number of runs, in words."""
        runs = "number of runs not stated" if self.runs is None else f"mean of {self.runs} runs"
        return f"{EPOCHS[self.epoch]}, {'one run' if self.runs == 1 else runs}"


def read_published(section: object, grids: Grids, teachers: Collection[str]) -> tuple[Published, ...]:
    """Read the section ``published`` of a study file: columns that all tables share, and one table for each source.

    Args:
        section: of the file.
        grids: of the variants.
        teachers: names of the teachers.

    Raises:
        UsageError: for a variant, teacher or grid value that the study lacks, or a number that is none in per cent.
    """
    if section is None:
        return ()
    whole = mapping(section, "published")
    only(whole, ("columns", "sources"), "published")
    columns = mapping(whole.get("columns"), "published.columns")
    sources = sequence(whole.get("sources"), "published.sources")
    return tuple(
        one
        for number, part in enumerate(sources)
        for one in _source(part, f"published.sources[{number}]", columns, grids, teachers)
    )


def _source(section: object, key: str, columns: Settings, grids: Grids, teachers: Collection[str]) -> list[Published]:
    part = mapping(section, key)
    only(part, ("source", "epoch", "runs", "percent", "teachers_percent"), key)
    source, epoch, runs = (part.get(name) for name in ("source", "epoch", "runs"))
    if not isinstance(source, str):
        raise UsageError(
            f"{key} has no source; say where its numbers were copied from, for example: README of X (2020)"
        )
    if epoch not in EPOCHS:
        raise UsageError(f"{key}.epoch is {epoch}, but it is the epoch that the source reports: {', '.join(EPOCHS)}")
    if runs is not None and (isinstance(runs, bool) or not isinstance(runs, int) or runs < 1):
        raise UsageError(f"{key}.runs is {runs}, but it is a number of runs; leave it out where the source has none")
    kind = source, epoch, runs
    found = []
    for name, percent in mapping(part.get("teachers_percent"), f"{key}.teachers_percent").items():
        _known(name, teachers, f"{key}.teachers_percent", "teacher")
        found.append(Published("teacher", name, {}, _accuracy(percent, f"{key}.teachers_percent.{name}"), *kind))
    for name, row in mapping(part.get("percent"), f"{key}.percent").items():
        _known(name, grids, f"{key}.percent", "variant")
        where = f"{key}.percent.{name}"
        for values, percent in _row(row, columns, grids[name], where):
            if percent is not None:
                found.append(Published("student", name, values, _accuracy(percent, where), *kind))
    return found


def _row(row: object, columns: Settings, axes: Mapping[str, Sequence[Any]], key: str) -> list[tuple[Settings, object]]:
    """The cells of a variant with their numbers, null where there is none: a list along the columns, or one number."""
    if not isinstance(row, list):
        if axes:
            raise UsageError(
                f"{key} is {row}, but the variant has a grid; give published.columns and a list of numbers along them"
            )
        return [({}, row)]
    if len(columns) != 1 or columns.keys() != axes.keys():
        raise UsageError(f"{key} is a list along the columns {[*columns]}, but the grid of the variant is {[*axes]}; "
                         "both must be one and the same axis")  # fmt: skip
    ((axis, names),) = columns.items()
    if not isinstance(names, list) or len(names) != len(row):
        raise UsageError(f"{key} has {len(row)} numbers for the columns {names}; give one for each, null where none is")
    for name, percent in zip(names, row, strict=True):
        if percent is not None:
            _known(name, axes[axis], key, axis)
    return [({axis: name}, percent) for name, percent in zip(names, row, strict=True)]


def _known(name: object, known: Collection[Any], key: str, what: str) -> None:
    if name not in known:
        raise UsageError(
            f"{key}: there is no {what} {name} in the study; there are: {', '.join(map(str, known)) or 'none'}"
        )


def _accuracy(percent: object, key: str) -> float:
    """A share of 1, free of the digits that a division by 100 adds."""
    if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not 1 < percent <= 100:
        raise UsageError(f"{key} has the value {percent}, but expected is a test accuracy in per cent, above 1: 70.66")
    return round(percent / 100, 8)
