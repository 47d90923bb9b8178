"""What all figures of a study share: their size, their colours, and what a reader is told beside them.

Matplotlib is imported only when a figure is drawn, and its global state (pyplot, the backend) is not touched.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kdlab.studies.results import Row
    from kdlab.studies.statistics import Summary

WIDTH_CM, HEIGHT_CM, CM_PER_INCH = 12.0, 8.0, 2.54
GREY = "#666666"
# Okabe & Ito, Color Universal Design, 2008, without black and yellow
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p", "d")  # as many as lines can be told apart
WIDE = 8.0  # costs that lie further apart than by this factor have a logarithmic axis, values of a grid perhaps


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure and what is said about it.

    Attributes:
        figure: to be saved.
        title: a few words.
        caption: what it shows, for those too who cannot see it.
        rows: the runs that it was drawn from.
    """

    figure: Figure
    title: str
    caption: str
    rows: tuple[Row, ...]


class LeftOut(NamedTuple):
    """A figure that was not drawn, and why."""

    reason: str


Picture = Drawing | LeftOut


def styled() -> AbstractContextManager[None]:
    """What is drawn inside has letters that fit its width, and names are no formulas, even with two dollar signs."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "font.size": 8,
            "axes.titlesize": 8,
            "legend.fontsize": 7,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "text.parse_math": False,
        }
    )


def new_figure(width_cm: float = WIDTH_CM, height_cm: float = HEIGHT_CM) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_cm / CM_PER_INCH, height_cm / CM_PER_INCH), layout="constrained", dpi=200)
    return figure, figure.subplots()


def shades(count: int) -> list[Any]:
    """So many colours from dark to light, in an order that also shows without colour."""
    import matplotlib

    scheme = matplotlib.colormaps["viridis"]
    return [scheme(0.9 * i / max(1, count - 1)) for i in range(count)]


def is_logarithmic(values: Collection[float]) -> bool:
    """Whether the values of a grid lie far apart, and more evenly by their logarithm than as they are."""
    if len(set(values)) < 3 or min(values) <= 0 or max(values) <= WIDE * min(values):
        return False

    def unevenness(places: Sequence[float]) -> float:
        gaps = [high - low for low, high in itertools.pairwise(places)]
        return max(gaps) / min(gaps)

    ordered = sorted(set(values))
    return unevenness([math.log(value) for value in ordered]) < unevenness(ordered)


def noted_seeds(rows: Sequence[Row]) -> str:
    """How many runs there are in a cell."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.cell] = counts.get(row.cell, 0) + 1
    low, high = min(counts.values()), max(counts.values())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def band(
    axis: Axes,
    points: Mapping[float, Summary],
    label: str,
    colour: Any,  # noqa: ANN401
    marker: str,
    interval: bool = True,
) -> None:
    """Draw means with a line, and their 95% intervals as a band around it."""
    places, means = list(points), [summary.mean for summary in points.values()]
    axis.plot(places, means, color=colour, linewidth=1.2, marker=marker, markersize=3, label=label)
    if interval and all(summary.half_width is not None for summary in points.values()):
        half = [summary.half_width or 0.0 for summary in points.values()]
        low = [mean - width for mean, width in zip(means, half, strict=True)]
        high = [mean + width for mean, width in zip(means, half, strict=True)]
        axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
