"""What the students of a study cost, as their profiles say, and their accuracy against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from kdlab.studies.canvas import COLOURS, GREY, MARKERS, WIDE, Drawing, LeftOut, Picture, new_figure, noted_seeds
from kdlab.studies.results import Results, Row, lookup
from kdlab.studies.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 10  # more names beside points than this cannot be read
NOT_PROFILED = "not profiled; a run measures its student with profile: true"


class Measured(NamedTuple):
    """One cost of one run.

    Attributes:
        value: in the unit of the cost; None where it was not measured.
        reason: why it was not measured.
    """

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Cost:
    """A cost of the deployed student.

    Attributes:
        name: in file names.
        column: in the tidy table.
        words: for readers, with its unit.
        section: of the profile.
        read: the value in that section; None where it is not there.
        by_clock: whether it depends on the machine it was measured on.
    """

    name: str
    column: str
    words: str
    section: str
    read: Callable[[Mapping[str, Any]], float | None]
    by_clock: bool

    def of(self, row: Row) -> Measured:
        """Read this cost from a run's profile."""
        profile = row.result.get("profile")
        if not profile:
            return Measured(None, NOT_PROFILED)
        section = profile.get(self.section, {})
        value = self.read(section)
        if value is None:
            return Measured(None, f"not measured: {section.get('reason', 'it is not in the profile')}")
        return Measured(value)


def _latency(section: Mapping[str, Any]) -> float | None:
    """Median latency of one image in the plain network, milliseconds; None where it was not measured."""
    for run in section.get("runs", ()):
        if run["variant"] == "eager" and run["batch_size"] == 1:
            return float(run["latency_ms_p50"])
    return None


COSTS = (
    Cost("latency", "latency_ms_p50", "latency of one image (ms, median)", "latency", _latency, True),
    Cost("macs", "macs", "multiply-adds of one image", "macs", lambda section: section.get("macs"), False),
    Cost("energy", "energy_mj_per_image", "energy of one image (mJ)", "energy",
         lambda section: section.get("energy_mj_per_image"), True),
)  # fmt: skip


def parameters(row: Row) -> float | None:
    """Number of the student's parameters; None where the result does not say it."""
    value: float | None = lookup(row.result, "student.parameters")
    return value


@dataclass(frozen=True)
class Point:
    """One cell among costs.

    Attributes:
        label: of the cell.
        variant: it belongs to.
        cost: mean over the runs of its network.
        accuracy: in percent.
    """

    label: str
    variant: str
    cost: float
    accuracy: Summary


def cost_figures(results: Results) -> Iterator[tuple[str, Picture]]:
    """The test accuracy against each of `COSTS`, or why there is no such figure."""
    for cost in COSTS:
        yield f"accuracy_against_{cost.name}", accuracy_against(results, cost)


def accuracy_against(results: Results, cost: Cost) -> Picture:
    """The mean test accuracy of each cell, and of each teacher, against one cost, with the Pareto front."""
    cells = {
        label: known
        for label, rows in results.cells_and_teachers.items()
        if (known := [row for row in rows if cost.of(row).value is not None])
    }
    if not cells:
        return LeftOut("; ".join(dict.fromkeys(cost.of(row).reason for row in results.rows)))
    students = {_machine(row) for known in cells.values() for row in known if row.run.role == "student"}
    if cost.by_clock and students:  # a teacher trains alone, often with more threads
        cells = {label: known for label, known in cells.items() if students.issuperset(map(_machine, known))}
    rows = [row for known in cells.values() for row in known]
    machines = sorted(set(map(_machine, rows)))
    if cost.by_clock and len(machines) > 1:
        return LeftOut(f"measured on machines that cannot be compared: {'; '.join(machines)}")
    points = _points(cells, cost)
    if len({point.cost for point in points}) == 1:
        return LeftOut(f"all students cost the same: {points[0].cost:,.6g}")
    front = pareto_front(points)
    figure, axis = new_figure()
    _draw(axis, points, front)
    if max(point.cost for point in points) > WIDE * min(point.cost for point in points) > 0:
        axis.set_xscale("log")
    axis.set(xlabel=cost.words, ylabel="test accuracy %")
    profiled = [row for row in rows if row.run.role == "student"] or rows
    axis.set_title(f"{results.plan.name}: mean and 95% interval, {noted_seeds(profiled)}", loc="left")
    where = f" Measured on {machines[0]}; equal networks share their mean." if cost.by_clock else ""
    caption = (
        f"Test accuracy against the {cost.words} of the deployed student: mean over seeds and 95% Student-t interval "
        f"of each cell; teachers are single runs. On the Pareto front, where nothing else is both cheaper and "
        f"better: {'; '.join(point.label for point in front)}.{where}"
    )
    return Drawing(figure, f"Accuracy against {cost.words}", caption, tuple(rows))


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in accuracy at the same cost or a lower one, from cheap to costly."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy.mean)):
        if not front or point.accuracy.mean > front[-1].accuracy.mean:
            front.append(point)
    return front


def _points(cells: Mapping[str, Sequence[Row]], cost: Cost) -> list[Point]:
    """One point per cell and teacher. Cells with the same network share its mean cost: what differs is noise."""
    networks: dict[str, list[float]] = {}
    for rows in cells.values():
        for row in rows:
            networks.setdefault(_network(row), []).append(cost.of(row).value or 0.0)
    return [
        Point(
            label,
            label if rows[0].run.role == "teacher" else rows[0].run.variant,
            fmean(networks[_network(rows[0])]),
            Summary.of([100 * row.accuracy for row in rows]),
        )
        for label, rows in cells.items()
    ]


def _machine(row: Row) -> str:
    return f"{row.origin.get('device')}, {row.origin.get('threads')} thread(s)"


def _network(row: Row) -> str:
    """What two runs with the same student share: its class, parameters and multiply-adds."""
    return str([lookup(row.result, key) for key in ("student.network", "student.parameters", "profile.macs.macs")])


def _draw(axis: Axes, points: Sequence[Point], front: Sequence[Point]) -> None:
    steps = [point.cost for point in front], [point.accuracy.mean for point in front]
    axis.step(*steps, where="post", color=GREY, linewidth=1, linestyle="--", label="Pareto front", zorder=1)
    variants = list(dict.fromkeys(point.variant for point in points))
    for number, variant in enumerate(variants):
        own = [point for point in points if point.variant == variant]
        axis.errorbar(
            [point.cost for point in own], [point.accuracy.mean for point in own],
            yerr=[point.accuracy.half_width or 0.0 for point in own], linestyle="none", markersize=4,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], elinewidth=0.8, label=variant,
        )  # fmt: skip
    named = points if len(points) <= MOST_NAMED else front
    for point in named:
        if point.label != point.variant:  # otherwise the legend says it
            axis.annotate(point.label.removeprefix(f"{point.variant}, "), (point.cost, point.accuracy.mean),
                          xytext=(4, 3), textcoords="offset points", fontsize=6, color=GREY)  # fmt: skip
    axis.legend(frameon=False)
