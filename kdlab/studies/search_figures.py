"""The trials of a search: what each reached against each key that was searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kdlab.studies.canvas import COLOURS, GREY, Drawing, LeftOut, Picture, new_figure, noted_seeds
from kdlab.studies.formats import scale, short_name
from kdlab.studies.plan import short_keys
from kdlab.studies.results import Results, Row
from kdlab.studies.selection import Selection, select
from kdlab.studies.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def search_figures(results: Results) -> Iterator[tuple[str, Picture]]:
    """For each search what it maximizes against each of its keys, with the best trial marked."""
    for selection in select(results):
        variant = selection.search.variant
        scored = ([row for row in rows if selection.search.maximize in row.metrics]
                  for rows in results.variants.get(variant, {}).values())  # fmt: skip
        cells = [rows for rows in scored if rows]
        shown = tuple(row for rows in cells for row in rows)
        metric = short_name(selection.search.maximize)
        for key, last in short_keys(selection.search.suggested[0]).items():
            if len({row.run.values[key] for row in shown}) < 2:
                yield f"{variant}_{last}", LeftOut("no two trials with different values have finished")
                continue
            caption = (
                f"Mean {metric} of each trial of {variant} against {key}, with the 95% Student-t interval; the ring is "
                "the best one, hollow ones lack seeds and are not chosen. The other keys differ too, so this is no "
                "effect of one key alone."
            )
            drawn = trials_against(results, selection, cells, key)
            yield f"{variant}_{last}", Drawing(drawn, f"{metric} against {last}", caption, shown)


def trials_against(results: Results, selection: Selection, cells: Sequence[Sequence[Row]], key: str) -> Figure:
    """One point for each trial; words in the order of their first trial, numbers on the scale they were drawn on."""
    figure, axis = new_figure()
    metric = selection.search.maximize
    factor, unit = scale(metric)
    numeric = all(_is_number(rows[0].run.values[key]) for rows in cells)
    seeds = len({run.seed for run in results.plan.students})
    for rows in cells:
        place = rows[0].run.values[key]
        summary = Summary.of([factor * row.metrics[metric] for row in rows])
        at = [place if numeric else str(place)], [summary.mean]
        axis.errorbar(*at, yerr=[summary.half_width or 0.0], fmt="o", markersize=4, color=COLOURS[0], ecolor=GREY,
                      elinewidth=0.8, fillstyle="full" if len(rows) == seeds else "none")  # fmt: skip
        if rows[0].cell == selection.best:
            axis.plot(*at, "o", markersize=10, fillstyle="none", color=COLOURS[1], label="best")
            axis.legend(frameon=False)
    if numeric and key in selection.search.logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set(xlabel=key, ylabel=f"{short_name(metric)}{unit}")
    shown = [row for rows in cells for row in rows]
    axis.set_title(f"{results.plan.name}: mean and 95% interval, {noted_seeds(shown)}", loc="left")
    return figure


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
