"""How the students of a study trained: their accuracy by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kdlab.studies.canvas import COLOURS, MARKERS, Drawing, LeftOut, Picture, band, new_figure, noted_seeds, shades
from kdlab.studies.results import Results, Row, curve
from kdlab.studies.statistics import Summary

MOST_LINES = 12  # more cannot be told apart, nor fit into a legend
FEW_LINES = 4
WIDE_CM = 16.0
CURVES = ("val/accuracy", "train/accuracy")  # the first one that the runs have


def curve_figures(results: Results) -> Iterator[tuple[str, Picture]]:
    """All cells in one figure where they can be told apart; else one for each variant."""
    cells = results.cells
    if len(cells) <= MOST_LINES:
        parts = {"curves": cells}
    else:  # variants without a grid stand in the figures of all others
        single = {label: rows for label, rows in cells.items() if not rows[0].run.values}
        grids = {name: own for name, own in results.variants.items() if not single.keys() & own.keys()}
        parts = {f"{name}_curves": single | own for name, own in grids.items()} or _chunks(single)
    for name, part in parts.items():
        yield name, training_curves(results, part)


def _chunks(cells: Mapping[str, list[Row]]) -> dict[str, dict[str, list[Row]]]:
    """Cells by figure, in each as many as can be told apart."""
    starts = range(0, len(cells), MOST_LINES)
    labels = list(cells)
    return {
        f"curves_{number}": {label: cells[label] for label in labels[start : start + MOST_LINES]}
        for number, start in enumerate(starts, start=1)
    }


def training_curves(results: Results, cells: Mapping[str, Sequence[Row]]) -> Picture:
    """Accuracy by epoch, mean over seeds, of each cell, or of cells evenly spread if there are many.

    With the 95% interval as a band where there are few.
    """
    from matplotlib.ticker import MaxNLocator

    metric, curves = next(((metric, found) for metric in CURVES if (found := _read_curves(cells, metric))), ("", {}))
    if not curves:
        return LeftOut("no run logged its accuracy for two epochs or more")
    caption = "Accuracy by epoch, mean over seeds."
    labels = list(curves)
    if len(labels) > MOST_LINES:
        labels = [labels[round(i * (len(labels) - 1) / (MOST_LINES - 1))] for i in range(MOST_LINES)]
        caption = f"Accuracy by epoch, mean over seeds, of {MOST_LINES} of {len(curves)} cells."
    few = len(labels) <= FEW_LINES  # then the intervals do not hide each other, and the legend has room
    figure, axis = new_figure(*(() if few else (WIDE_CM,)))
    colours = COLOURS if len(labels) <= len(COLOURS) else shades(len(labels))
    for number, label in enumerate(labels):
        values = [by_epoch for _, by_epoch in curves[label]]
        epochs = sorted(set.intersection(*map(set, values)))
        points: dict[float, Summary] = {
            epoch: Summary.of([100 * by_epoch[epoch] for by_epoch in values]) for epoch in epochs
        }
        band(axis, points, label, colours[number], MARKERS[number % len(MARKERS)], few)
    axis.set(xlabel="epoch", ylabel=f"{metric.replace('/', ' ')} %")
    shown = tuple(row for label in labels for row, _ in curves[label])
    axis.set_title(f"{results.plan.name}: mean over seeds, {noted_seeds(shown)}", loc="left")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if few:
        axis.legend(frameon=False, loc="lower right")
    else:
        figure.legend(frameon=False, loc="outside right upper")
    return Drawing(figure, "Training curves", caption, shown)


def _read_curves(cells: Mapping[str, Sequence[Row]], metric: str) -> dict[str, list[tuple[Row, dict[int, float]]]]:
    """Label of each cell that has any -> its runs with a curve, and their values by epoch."""
    read = {label: [(row, curve(row.folder, metric)) for row in rows] for label, rows in cells.items()}
    curves = {label: [(row, values) for row, values in found if len(values) > 1] for label, found in read.items()}
    return {label: known for label, known in curves.items() if known}
