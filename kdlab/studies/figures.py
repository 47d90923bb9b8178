"""The figures of a study: its grids, and with them all others.

Each is a `Drawing`, made to be read at 12 cm width, or the reason why it was left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdlab.studies.answers import answer_figures
from kdlab.studies.canvas import (
    GREY,
    MARKERS,
    Drawing,
    LeftOut,
    Picture,
    band,
    is_logarithmic,
    new_figure,
    noted_seeds,
    shades,
    styled,
)
from kdlab.studies.costs import cost_figures
from kdlab.studies.curves import curve_figures
from kdlab.studies.formats import scale, short_name
from kdlab.studies.landscape import loss_landscape
from kdlab.studies.plan import short_keys
from kdlab.studies.results import Results, Row
from kdlab.studies.search_figures import search_figures
from kdlab.studies.sections import Settings
from kdlab.studies.spent import spending_figures
from kdlab.studies.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LONGEST_NAME = 100  # bytes; a file system takes 255, with the suffix and what is put before it while it is written


def draw_figures(results: Results) -> dict[str, Picture]:
    """Every figure of a study, or why it was left out: file name without suffix -> picture."""
    pictures: dict[str, Picture] = {}
    with styled():
        for draw in (_grids, search_figures, curve_figures, spending_figures, cost_figures, answer_figures, _landscape):
            for name, picture in draw(results):
                pictures[_file_name(name, pictures)] = picture
    return pictures


def _file_name(name: str, taken: Collection[str]) -> str:
    """A name that files may have, not too long, and that is not taken: runs may be called what they like."""
    plain = re.sub(r"[^\w.-]+", "_", name).encode()[:LONGEST_NAME].decode(errors="ignore")
    names = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _grids(results: Results) -> Iterator[tuple[str, Picture]]:
    """For each variant the first metric against each numeric grid key, and a heat map where there are just two."""
    metric = short_name(results.plan.metrics[0])
    searched = {search.variant for search in results.plan.searches}
    for variant in [name for name in results.variants if name not in searched]:
        rows = tuple(_of(results, variant))
        keys = _numeric_keys(results, variant)
        names = short_keys(rows[0].run.values)
        beside = [row for own in _without_grid(results, variant).values() for row in own]
        for key in keys:
            caption = (
                f"Mean {metric} of {variant} against {key}, with the 95% Student-t interval as a band; dashed: "
                "variants without a grid."
            )
            drawn = metric_against(results, variant, key)
            title = f"{metric} against {names[key]}"
            yield f"{variant}_{names[key]}", Drawing(drawn, title, caption, (*rows, *beside))
        if len(keys) == 2 and len(_grid_keys(results, variant)) == 2:
            drawn = heat_map(results, variant, keys[0], keys[1])
            x, y = names[keys[0]], names[keys[1]]
            caption = f"Mean {metric} of {variant} over the seeds for each {x} and {y}."
            yield f"{variant}_{x}_{y}", Drawing(drawn, f"{metric} by {x} and {y}", caption, rows)


def metric_against(results: Results, variant: str, key: str) -> Figure:
    """The first metric against a grid key: mean and 95% interval as a band, one line per value of the other keys.

    Variants without a grid are drawn as dashed lines.
    """
    figure, axis = new_figure()
    lines: dict[str, dict[float, list[float]]] = {}
    metric = results.plan.metrics[0]
    factor, unit = scale(metric)
    for row in _of(results, variant):
        names = short_keys(row.run.values)
        label = ", ".join([variant, *(f"{names[k]} {value}" for k, value in row.run.values.items() if k != key)])
        point = lines.setdefault(label, {}).setdefault(float(row.run.values[key]), [])
        point.append(factor * row.metrics[metric])
    for number, ((label, points), colour) in enumerate(zip(lines.items(), shades(len(lines)), strict=True)):
        summaries = {x: Summary.of(values) for x, values in sorted(points.items())}
        band(axis, summaries, label, colour, MARKERS[number % len(MARKERS)])
    for name, rows in _without_grid(results, variant).items():
        mean = fmean(factor * row.metrics[metric] for row in rows)
        axis.axhline(mean, color=GREY, linestyle="--", linewidth=1)
        axis.annotate(name, (0.01, mean), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=7)
    places = sorted({x for points in lines.values() for x in points})
    if is_logarithmic(places):
        axis.set_xscale("log")
        axis.set_xticks(places, [f"{x:g}" for x in places])
        axis.minorticks_off()
    axis.set(xlabel=key, ylabel=f"{short_name(metric)}{unit}")
    axis.set_title(f"{results.plan.name}: mean and 95% interval, {noted_seeds(_of(results, variant))}", loc="left")
    if len(lines) > 1:
        axis.legend(frameon=False)
    return figure


def heat_map(results: Results, variant: str, x_key: str, y_key: str) -> Figure:
    """The mean of the first metric over the seeds for each pair of values; a pair without a run stays white."""
    figure, axis = new_figure()
    metric = results.plan.metrics[0]
    factor, unit = scale(metric)
    found: dict[tuple[Any, Any], list[float]] = {}
    for row in _of(results, variant):
        found.setdefault((row.run.values[y_key], row.run.values[x_key]), []).append(factor * row.metrics[metric])
    columns, lines = sorted({x for _, x in found}), sorted({y for y, _ in found})
    missing = float("nan")
    means = [[fmean(found[y, x]) if (y, x) in found else missing for x in columns] for y in lines]
    image = axis.imshow(means, cmap="cividis", aspect="auto", origin="lower")
    known = [fmean(values) for values in found.values()]
    middle = (min(known) + max(known)) / 2
    for (y, x), values in found.items():
        mean = fmean(values)
        colour = "white" if mean < middle else "black"
        axis.text(columns.index(x), lines.index(y), f"{mean:.4g}", ha="center", va="center", color=colour, fontsize=7)
    axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axis.set_yticks(range(len(lines)), [f"{value:g}" for value in lines])
    axis.set(xlabel=x_key, ylabel=y_key)
    axis.set_title(f"{results.plan.name}: {variant}, {noted_seeds(_of(results, variant))}", loc="left")
    figure.colorbar(image, ax=axis, label=f"{short_name(metric)}{unit}, mean")
    return figure


def _landscape(results: Results) -> Iterator[tuple[str, Picture]]:
    key = "model.temperature"
    grids = [row for row in results.rows if row.run.variant not in {one.variant for one in results.plan.searches}]
    rows = tuple(row for row in grids if isinstance(row.run.values.get(key), (int, float)))
    temperatures = sorted({float(row.run.values[key]) for row in rows if row.run.values[key] > 0})
    if len(temperatures) < 2:
        yield "loss_landscape", LeftOut(f"a toy that explains temperatures; {key} is in no grid")
        return
    yield "loss_landscape", loss_landscape(temperatures, rows)


def _of(results: Results, variant: str) -> list[Row]:
    return [row for rows in results.variants[variant].values() for row in rows]


def _without_grid(results: Results, variant: str) -> dict[str, list[Row]]:
    """The runs of each other variant that has no grid; of one that has, a single cell may be left."""
    single = {name: next(iter(cells.values())) for name, cells in results.variants.items() if name != variant}
    return {name: rows for name, rows in single.items() if not rows[0].run.values}


def _grid_keys(results: Results, variant: str) -> list[str]:
    """The grid keys of a variant that have more than one value."""
    values: dict[str, set[Any]] = {}
    for row in _of(results, variant):
        for key, value in row.run.values.items():
            values.setdefault(key, set()).add(value)
    return [key for key, found in values.items() if len(found) > 1]


def _numeric_keys(results: Results, variant: str) -> list[str]:
    def numeric(settings: Settings, key: str) -> bool:
        return isinstance(settings[key], (int, float)) and not isinstance(settings[key], bool)

    rows = _of(results, variant)
    return [key for key in _grid_keys(results, variant) if all(numeric(row.run.values, key) for row in rows)]
