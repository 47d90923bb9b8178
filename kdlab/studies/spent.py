"""What trainings of different lengths reach for what they spend: accuracy against time, energy and multiply-adds.

A variant takes part if its grid varies the number of epochs. Each point is a training of its own, whose schedule ended
with it; a point on the way of a longer one would stand there with a learning rate that had not fallen yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from kdlab.studies.canvas import COLOURS, MARKERS, WIDE, Drawing, LeftOut, Picture, band, new_figure, noted_seeds
from kdlab.studies.results import Results, Row, lookup
from kdlab.studies.statistics import Summary

EPOCHS = "trainer.max_epochs"
WHY = {"seconds": "", "joules": "training_cost.reason", "macs": "training_cost.macs_reason"}
SPENT = {"seconds": "seconds of training", "joules": "joules of training", "macs": "multiply-adds of training"}


def spent(row: Row, resource: str) -> float | None:
    """What the training of a run took, its teacher's answers included; None where it is not known.

    None, too, where a memory gave answers that cost somebody else; time and energy where other runs had a part in them.
    """
    answered, computed = (row.number(f"teacher.images_{count}") for count in ("answered", "computed"))
    if answered is not None and computed is not None and computed < answered:
        return None
    if resource == "joules":
        return row.number("training_cost.train_energy_j")
    if resource == "seconds":
        alone = row.number("training_cost.runs_per_device") == 1
        return row.number("training_cost.train_s") if alone else None
    epoch, images, per_epoch = (
        row.number(f"training_cost.{key}") for key in ("train_macs_per_epoch", "train_images", "images_per_epoch")
    )
    return epoch * images / per_epoch if epoch and images and per_epoch else None


def spending_figures(results: Results) -> Iterator[tuple[str, Picture]]:
    """One figure for each resource, in studies that vary the number of epochs."""
    variants = {
        name: cells
        for name, cells in results.variants.items()
        if len(cells) > 1 and all(EPOCHS in rows[0].run.values for rows in cells.values())
    }
    if variants:
        for resource in SPENT:
            yield f"accuracy_against_training_{resource}", accuracy_against_spent(results, variants, resource)


def accuracy_against_spent(results: Results, variants: dict[str, dict[str, list[Row]]], resource: str) -> Picture:
    """Mean test accuracy of each cell against the mean of what its runs spent, one curve for each variant."""
    figure, axis = new_figure()
    shown: list[Row] = []
    places: list[float] = []
    for number, (name, cells) in enumerate(variants.items()):
        points = {}
        for rows in cells.values():
            known = [value for row in rows if (value := spent(row, resource)) is not None]
            if len(known) == len(rows):
                points[fmean(known)] = Summary.of([100 * row.accuracy for row in rows])
                shown += rows
        if points:
            places += points
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            band(axis, dict(sorted(points.items())), name, colour, marker)
    if not shown:
        rows = [row for cells in variants.values() for own in cells.values() for row in own]
        reasons = filter(None, dict.fromkeys(lookup(row.result, WHY[resource]) for row in rows))
        alone = "a run that is alone on its device knows them (--jobs 1, profile: true)"
        return LeftOut(f"{SPENT[resource]} were not measured: {'; '.join(reasons) or alone}")
    if max(places) > WIDE * min(places):
        axis.set_xscale("log")
    axis.set(xlabel=SPENT[resource], ylabel="test accuracy %")
    axis.set_title(f"{results.plan.name}: mean and 95% interval, {noted_seeds(shown)}", loc="left")
    axis.legend(frameon=False, loc="lower right")
    caption = (
        f"Test accuracy against {SPENT[resource]}, the teacher's answers included and its own training not: mean over "
        "seeds, with the 95% Student-t interval as a band. Each point is a training of its own with its whole schedule."
    )
    return Drawing(figure, f"Accuracy against {SPENT[resource]}", caption, tuple(shown))
