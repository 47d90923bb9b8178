"""The analysis as pictures, made to be read at 10 cm width and without telling red from green.

Every function returns a matplotlib `Figure`; the caller saves it: ``figure.savefig("reliability.svg")``. Matplotlib is
imported only when a figure is drawn, and its global state (pyplot, the backend) is not touched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec

import numpy as np

from kdlab.analysis.calibration import Calibration
from kdlab.analysis.cka import CKAMatrix
from kdlab.analysis.confusion import Confusion
from kdlab.analysis.inputs import Floats
from kdlab.analysis.logit_standardization import SampleDivergences
from kdlab.analysis.mismatches import Ranking
from kdlab.analysis.report import Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_CM = 10.0
CM_PER_INCH = 2.54
# Okabe & Ito, Color Universal Design, 2008
BLUE, ORANGE = "#0072B2", "#E69F00"
GREY, LIGHT_GREY = "#666666", "#BBBBBB"
MOST_NAMES = 20  # more class names than this cannot be read beside an axis of this width
MOST_NUMBERS = 10  # more rows or columns than this have no room for a number in each cell
LOWEST_KL = 1e-4  # nats; what is smaller stands in the first bin

Arguments = ParamSpec("Arguments")


def _styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Give everything drawn inside letters that fit the width, and nothing outside."""

    @functools.wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(
            {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7}
        ):
            return draw(*args, **kwargs)

    return styled


@_styled
def reliability_diagram(calibration: Calibration, title: str = "student") -> Figure:
    """Accuracy against confidence in 15 bins, above the share of samples in each."""
    figure = _figure(height_cm=9)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = calibration.bins
    left, width = np.array(bins.edges[:-1]), np.diff(bins.edges)
    accuracy = _with_gaps(bins.accuracy)
    confidence = _with_gaps(bins.confidence)
    upper.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white", linewidth=0.5, label="accuracy")
    upper.plot(
        confidence, accuracy, "o", color=ORANGE, markersize=3, clip_on=False, label="at the bin's mean confidence"
    )
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="calibrated")
    upper.set(ylabel="accuracy (share)", ylim=(0, 1), xlim=(0, 1))
    upper.legend(loc="upper left", frameon=False)
    ece = "not defined" if calibration.ece is None else f"{calibration.ece:.3f}"
    upper.set_title(f"{title}: reliability, ECE {ece}, n = {calibration.n}")
    lower.bar(left, np.array(bins.count) / max(calibration.n, 1), width, align="edge", color=GREY, edgecolor="white")
    lower.set(xlabel="confidence (probability of the answer)", ylabel="share of\nsamples")
    return figure


@_styled
def confusion_matrices(student: Confusion, teacher: Confusion, class_names: Sequence[str] = ()) -> Figure:
    """Both confusion matrices side by side, each row as shares of its class, on one colour scale.

    The scale is a square root: errors, each a few percent of a class, would not be seen beside the diagonal.
    """
    from matplotlib.colors import PowerNorm

    figure = _figure(height_cm=8)
    axes = figure.subplots(1, 2, sharey=True)
    image = None
    for axis, confusion, role in zip(axes, (teacher, student), ("teacher", "student"), strict=True):
        share = confusion.matrix / np.maximum(confusion.matrix.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, norm=PowerNorm(0.5, vmin=0, vmax=1), cmap="cividis")
        axis.set(title=f"{role}, n = {confusion.n}", xlabel="answer (class)")
        _name_classes(axis, len(share), class_names, both=True)
    axes[0].set_ylabel("label (class)")
    assert image is not None
    figure.colorbar(image, ax=axes, label="share of the label's samples", location="bottom", aspect=40)
    return figure


@_styled
def per_class_accuracy(student: Confusion, teacher: Confusion, class_names: Sequence[str] = ()) -> Figure:
    """The accuracy of teacher and student in every class; an absent class has no bar."""
    figure = _figure(height_cm=6)
    axis = figure.subplots()
    position = np.arange(len(student.accuracy))
    # the student's narrow bars stand in front of the teacher's wide ones: still visible with 100 classes
    for confusion, role, colour, width in ((teacher, "teacher", LIGHT_GREY, 0.9), (student, "student", BLUE, 0.45)):
        values = _with_gaps(confusion.accuracy)
        axis.bar(position, values, width, color=colour, label=role)
    axis.set(xlabel="class", ylabel="accuracy (share)", ylim=(0, 1))
    axis.set_title(f"accuracy by class, n = {student.n}", loc="left")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderpad=0)
    _name_classes(axis, len(position), class_names, both=False)
    return figure


@_styled
def kl_histogram(samples: SampleDivergences, title: str = "student") -> Figure:
    """The divergence from the teacher by sample, of plain and of standardized logits."""
    figure = _figure(height_cm=6)
    axis = figure.subplots()
    both = np.concatenate([samples.kl, samples.kl_standardized])
    highest = max(float(both.max(initial=0)), 10 * LOWEST_KL) * 1.01
    edges = np.geomspace(LOWEST_KL, highest, 41)
    for values, name, colour, style in (
        (samples.kl, "plain logits", BLUE, "-"),
        (samples.kl_standardized, "standardized logits", ORANGE, "--"),
    ):
        counts, _ = np.histogram(np.clip(values, LOWEST_KL, None), edges)
        median = f", median {np.median(values):.3g}" if values.size else ""
        axis.stairs(counts, edges, color=colour, linestyle=style, linewidth=1.5, label=name + median)
    axis.set(xscale="log", ylabel="samples")
    axis.set_xlabel(f"KL(teacher || student), T = {samples.temperature:g} (nats; first bin: all below)")
    axis.set_title(f"{title}: divergence by sample, n = {len(samples.kl)}")
    axis.legend(loc="upper left", frameon=False)
    return figure


@_styled
def cka_heat_map(cka: CKAMatrix) -> Figure:
    """Linear CKA of each student layer with each teacher layer; a constant layer stays white."""
    figure = _figure(height_cm=8)
    axis = figure.subplots()
    values = np.stack([_with_gaps(row) for row in cka.values])
    lowest = min(0.0, float(np.nanmin(values, initial=0.0)))  # the unbiased estimate may lie slightly below 0
    image = axis.imshow(values, vmin=lowest, vmax=1, cmap="viridis", origin="lower")
    axis.set(xlabel="teacher layer", ylabel="student layer", title=f"linear CKA, n = {cka.n}")
    axis.set_xticks(range(len(cka.teacher_layers)), cka.teacher_layers, rotation=45, ha="right")
    axis.set_yticks(range(len(cka.student_layers)), cka.student_layers)
    if max(values.shape) <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            axis.text(column, row, text, ha="center", va="center", color="white" if value < 0.6 else "black", size=7)
    figure.colorbar(image, ax=axis, label="CKA (at most 1)")
    return figure


@_styled
def right_against_wrong(first: SampleDivergences, second: SampleDivergences, students: tuple[str, str]) -> Figure:
    """Divergence of the right student against that of the wrong one, by sample, before and after standardization.

    Of two students of one teacher, on the samples that exactly one of them answers correctly. Below the diagonal the
    wrong one is nearer to the teacher: a mismatch.
    """
    figure = _figure(height_cm=7)
    one_right = first.correct != second.correct
    pairs = {
        "plain logits": Ranking.of(first.correct, first.kl, second.kl),
        "standardized logits": Ranking.of(first.correct, first.kl_standardized, second.kl_standardized),
    }
    for axis, (name, pair) in zip(figure.subplots(1, 2), pairs.items(), strict=True):
        right, wrong = (np.clip(values[one_right], LOWEST_KL, None) for values in pair)
        below = pair.wrong_first[one_right]
        for chosen, colour, marker in ((~below, GREY, "o"), (below, ORANGE, "v")):
            axis.scatter(
                right[chosen], wrong[chosen], s=6, alpha=0.7, color=colour, marker=marker, linewidths=0, clip_on=False
            )
        shown = np.concatenate([right, wrong])
        ends = shown.min(initial=1) / 1.5, shown.max(initial=LOWEST_KL) * 1.5
        axis.plot(ends, ends, "--", color=GREY, linewidth=1)
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal", xlabel="KL of the right student")
        axis.set_title(f"{name}\nmismatches: {int(below.sum())} of {len(below)}")
    figure.axes[0].set_ylabel("KL of the wrong student (nats)")
    figure.suptitle(f"{students[0]} and {students[1]}, n = {len(one_right)}", wrap=True, fontsize=8)
    return figure


def draw_all(analysis: Analysis) -> dict[str, Figure]:
    """Return every figure that an analysis allows: file name without suffix -> figure.

    Without a teacher: the student's reliability diagram. Without tapped layers: no heat map. Without a second student:
    no mismatches.
    """
    student, teacher, names = analysis.student, analysis.teacher, analysis.class_names
    figures = {"reliability_student": reliability_diagram(student.calibration, "student")}
    if teacher is not None and analysis.following is not None:
        figures |= {
            "reliability_teacher": reliability_diagram(teacher.calibration, "teacher"),
            "confusion": confusion_matrices(student.confusion, teacher.confusion, names),
            "accuracy_by_class": per_class_accuracy(student.confusion, teacher.confusion, names),
            "kl_by_sample": kl_histogram(analysis.following.samples, analysis.name),
        }
    if analysis.cka is not None:
        figures["cka"] = cka_heat_map(analysis.cka)
    comparison = analysis.comparison
    if comparison is not None and comparison.following is not None:
        first, second = comparison.following
        figures["mismatches"] = right_against_wrong(first.samples, second.samples, comparison.students)
    return figures


def _figure(height_cm: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_CM / CM_PER_INCH, height_cm / CM_PER_INCH), layout="constrained", dpi=200)


def _name_classes(axis: Axes, num_classes: int, class_names: Sequence[str], both: bool) -> None:
    """Label the class axes: names where they fit, else every so many indices."""
    if class_names and num_classes <= MOST_NAMES:
        axis.set_xticks(range(num_classes), class_names, rotation=90)
        ticks, names = list(range(num_classes)), list(class_names)
    else:
        step = max(1, -(-num_classes // 10))
        ticks = list(range(0, num_classes, step))
        names = [str(tick) for tick in ticks]
        axis.set_xticks(ticks, names)
    if both:
        axis.set_yticks(ticks, names)


def _with_gaps(values: Sequence[float | None]) -> Floats:
    """What is not defined as NaN, which matplotlib leaves out."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
