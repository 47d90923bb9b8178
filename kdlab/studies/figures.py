"""The figures of a study, made to be read at 12 cm width.

Every function returns a matplotlib `Figure`. Matplotlib is imported only when a figure is drawn, and its global state
(pyplot, the backend) is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdlab.studies.file import Settings
from kdlab.studies.plan import cell_label
from kdlab.studies.results import Results, Row, curve
from kdlab.studies.statistics import Summary
from kdlab.studies.tables import scale, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_CM, HEIGHT_CM, CM_PER_INCH = 12.0, 8.0, 2.54
GREY = "#666666"
MOST_LINES = 12  # more cannot be told apart, nor fit into a legend
CURVES = ("val/accuracy", "train/accuracy")  # the first one that the runs have


def draw_figures(results: Results) -> dict[str, Figure]:
    """Return every figure that the study allows: file name without suffix -> figure.

    For each variant and each of its numeric grid keys the first metric against the key; for each with exactly two of
    them a heat map; and for each variant the training curves.
    """
    import matplotlib

    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(
        {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7}
    ):
        for variant in dict.fromkeys(row.run.variant for row in results.rows):
            keys = _numeric_keys(results, variant)
            for key in keys:
                figures[f"{variant}_{_last(key)}"] = metric_against(results, variant, key)
            if len(keys) == 2 and len(_grid_keys(results, variant)) == 2:
                figures[f"{variant}_{_last(keys[0])}_{_last(keys[1])}"] = heat_map(results, variant, keys[0], keys[1])
            curves = training_curves(results, variant)
            if curves is not None:
                figures[f"{variant}_curves"] = curves
    return figures


def metric_against(results: Results, variant: str, key: str) -> Figure:
    """The first metric against a grid key: mean and 95% interval as a band, one line per value of the other keys.

    Variants without a grid are drawn as dashed lines.
    """
    figure, axis = _figure()
    lines: dict[str, dict[float, list[float]]] = {}
    metric = results.plan.metrics[0]
    factor, unit = scale(metric)
    for row in _of(results, variant):
        others = {name: value for name, value in row.run.values.items() if name != key}
        label = cell_label(variant, others)
        point = lines.setdefault(label, {}).setdefault(float(row.run.values[key]), [])
        point.append(factor * row.metrics[metric])
    for (label, points), colour in zip(lines.items(), _colours(len(lines)), strict=True):
        _band(axis, {x: Summary.of(values) for x, values in sorted(points.items())}, label, colour)
    for name in dict.fromkeys(row.run.variant for row in results.rows):
        rows = _of(results, name)
        if name != variant and not rows[0].run.values:
            mean = fmean(factor * row.metrics[metric] for row in rows)
            axis.axhline(mean, color=GREY, linestyle="--", linewidth=1)
            axis.annotate(name, (0.01, mean), xycoords=("axes fraction", "data"), va="bottom", color=GREY, fontsize=7)
    axis.set(xlabel=key, ylabel=f"{short_name(metric)}{unit}")
    axis.set_title(f"{results.plan.name}: mean and 95% interval, {_seeds(_of(results, variant))}", loc="left")
    if len(lines) > 1:
        axis.legend(frameon=False)
    return figure


def heat_map(results: Results, variant: str, x_key: str, y_key: str) -> Figure:
    """The mean of the first metric over the seeds for each pair of values; a pair without a run stays white."""
    figure, axis = _figure()
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
    axis.set_title(f"{results.plan.name}: {variant}, {_seeds(_of(results, variant))}", loc="left")
    figure.colorbar(image, ax=axis, label=f"{short_name(metric)}{unit}, mean")
    return figure


def training_curves(results: Results, variant: str) -> Figure | None:
    """Accuracy by epoch, mean over seeds, of each cell of a variant, or of cells evenly spread if there are many.

    None where the runs logged no accuracy by epoch.
    """
    rows = _of(results, variant)
    for metric in CURVES:
        curves: dict[str, list[Mapping[int, float]]] = {}
        for row in rows:
            values = curve(results.folder / row.run.id, metric)
            if values:
                curves.setdefault(row.cell, []).append(values)
        if curves:
            break
    else:
        return None
    labels = list(curves)
    if len(labels) > MOST_LINES:
        labels = [labels[round(i * (len(labels) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)]
    figure, axis = _figure()
    for label, colour in zip(labels, _colours(len(labels)), strict=True):
        epochs = sorted(set.intersection(*(set(values) for values in curves[label])))
        means = [100 * fmean(values[epoch] for values in curves[label]) for epoch in epochs]
        axis.plot(epochs, means, color=colour, linewidth=1.2, marker=".", markersize=3, label=label)
    axis.set(xlabel="epoch", ylabel=f"{metric.replace('/', ' ')} %")
    axis.set_title(f"{results.plan.name}: mean of {_seeds(rows)}", loc="left")
    axis.legend(frameon=False, loc="lower right")
    return figure


def _band(axis: Axes, points: Mapping[float, Summary], label: str, colour: Any) -> None:  # noqa: ANN401
    places, means = list(points), [summary.mean for summary in points.values()]
    axis.plot(places, means, color=colour, linewidth=1.2, marker="o", markersize=3, label=label)
    if all(summary.half_width is not None for summary in points.values()):
        half = [summary.half_width or 0.0 for summary in points.values()]
        low = [mean - width for mean, width in zip(means, half, strict=True)]
        high = [mean + width for mean, width in zip(means, half, strict=True)]
        axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _of(results: Results, variant: str) -> list[Row]:
    return [row for row in results.rows if row.run.variant == variant]


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


def _seeds(rows: list[Row]) -> str:
    """How many runs there are in a cell."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.cell] = counts.get(row.cell, 0) + 1
    low, high = min(counts.values()), max(counts.values())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def _colours(count: int) -> list[Any]:
    """So many colours from dark to light, in an order that also shows without colour."""
    import matplotlib

    scheme = matplotlib.colormaps["viridis"]
    return [scheme(0.9 * i / max(1, count - 1)) for i in range(count)]


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_CM / CM_PER_INCH, HEIGHT_CM / CM_PER_INCH), layout="constrained", dpi=200)
    return figure, figure.subplots()
