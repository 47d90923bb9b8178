r"""What the soft-target loss looks like to a student: a toy of two and three classes, with its limit at high T.

With student logits s, teacher logits t, and a bar for the mean over the K classes:

.. math:: T^2 \, \mathrm{KL}\big(\sigma(t / T) \,\|\, \sigma(s / T)\big) \longrightarrow
          \frac{1}{2K} \sum_i \big((t_i - \bar t) - (s_i - \bar s)\big)^2 \quad (T \to \infty)

Expanding the softmax, :math:`p_i = (1 + (t_i - \bar t) / T) / K + O(T^{-2})`, and for close distributions
:math:`\mathrm{KL}(p \| q) = \frac12 \sum_i (p_i - q_i)^2 / p_i` up to third order; with :math:`p_i \to 1 / K` both give
the limit. Its gradient is that of Hinton, Vinyals & Dean, 2015, section 2.1.

At T = 1 a student that is surer than its teacher loses next to nothing, so it only has to rank the classes; at high T
it must match every logit, which a small network may not be able to.

Shapes: N points, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdlab.analysis.fidelity import divergence
from kdlab.studies.canvas import CM_PER_INCH, GREY, Drawing, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kdlab.studies.results import Row

Floats = NDArray[np.float64]

GAP = 6.0  # of the two teacher logits: it is sure, 99.8%
THREE = (4.0, 0.0, -4.0)
LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
SPAN = 9.0  # of the student's logits on each side of the teacher's


def soft_target_loss(student: Floats, teacher: Floats, temperature: float) -> Floats:
    """``[N]`` losses T^2 KL(teacher || student) of ``[N, K]`` logits."""
    return temperature**2 * divergence(student, teacher, temperature)


def high_temperature_limit(student: Floats, teacher: Floats) -> Floats:
    """``[N]`` limits of `soft_target_loss` as T grows without end."""
    difference = teacher - student
    centred = difference - difference.mean(axis=1, keepdims=True)
    limit: Floats = (centred**2).sum(axis=1) / (2 * student.shape[1])
    return limit


def loss_landscape(temperatures: Sequence[float], rows: tuple[Row, ...]) -> Drawing:
    """The loss over the student's logits at some temperatures, with the limit of high ones.

    Left two classes, a line for each temperature; right three classes at the lowest and the highest temperature.

    Args:
        temperatures: in rising order, at least one.
        rows: the runs that were trained at them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18 / CM_PER_INCH, 7 / CM_PER_INCH), layout="constrained", dpi=200)
    ends = dict.fromkeys((temperatures[0], temperatures[-1]))
    axes = np.atleast_1d(figure.subplots(1, 1 + len(ends), width_ratios=(1.3, *(1 for _ in ends))))
    _two_classes(axes[0], temperatures)
    for axis, temperature in zip(axes[1:], ends, strict=True):
        _three_classes(axis, temperature)
    caption = (
        "The soft-target loss T²·KL of a toy over the student's logits; no run was measured for it. Left: two classes, "
        f"the teacher's logits {GAP:g} apart. Right: three classes, logits centred, the teacher at the cross. "
        "Dashed: the closed form that it tends to as T grows, the squared distance of the centred logits over 2K. "
        "At T = 1 a student that is surer than its teacher pays almost nothing; at high T it must match every logit."
    )
    return Drawing(figure, "Loss landscape of a toy", caption, rows)


def _two_classes(axis: Axes, temperatures: Sequence[float]) -> None:
    gaps = np.linspace(-6, 18, 241)
    students, teacher = (np.stack([values / 2, -values / 2], axis=1) for values in (gaps, np.full_like(gaps, GAP)))
    for temperature, colour in zip(temperatures, shades(len(temperatures)), strict=True):
        loss = soft_target_loss(students, teacher, temperature)
        axis.plot(gaps, loss, color=colour, linewidth=1.2, label=f"T = {temperature:g}")
    axis.plot(
        gaps, high_temperature_limit(students, teacher), "--", color=GREY, linewidth=1, label="limit, T to infinity"
    )
    axis.axvline(GAP, color=GREY, linewidth=0.6)
    axis.set(xlabel="student: right logit minus the other", ylabel="T² KL (nats)", ylim=(0, 12))
    axis.set_title(f"2 classes, teacher at {GAP:g}", loc="left")
    axis.legend(frameon=False, loc="upper right")


def _three_classes(axis: Axes, temperature: float) -> None:
    """Contours over the plane of centred logits, in an orthonormal basis, so that the limit's are circles."""
    basis = np.array([[1, 0, -1], [-1, 2, -1]]) / np.sqrt([[2], [6]])
    teacher = np.array([THREE])
    centre = (teacher @ basis.T)[0]
    across, up = np.meshgrid(*(place + np.linspace(-SPAN, SPAN, 121) for place in centre))
    students = np.stack([across.ravel(), up.ravel()], axis=1) @ basis
    teachers = np.broadcast_to(teacher, students.shape)
    loss = soft_target_loss(students, teachers, temperature).reshape(across.shape)
    limit = high_temperature_limit(students, teachers).reshape(across.shape)
    axis.contour(across, up, loss, LEVELS, cmap="viridis", linewidths=1, vmax=LEVELS[-1] * 1.1)
    axis.contour(across, up, limit, LEVELS, colors=GREY, linewidths=0.6, linestyles="dashed")
    axis.plot(*centre, "+", color="black", markersize=7)
    axis.set(xlabel="(s₁ - s₃) / √2", ylabel="(2s₂ - s₁ - s₃) / √6", aspect="equal")
    axis.set_title(f"3 classes, T = {temperature:g}", loc="left")
