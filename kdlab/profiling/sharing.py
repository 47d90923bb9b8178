"""Whether other runs work on this process's device: its clock and its energy counter then tell of all of them."""

from __future__ import annotations

import os

from kdlab.profiling.results import NotMeasured

VARIABLE = "KDLAB_RUNS_PER_DEVICE"  # set by who starts several runs at a time


def runs_per_device() -> int:
    """Return how many runs may be on the device at a time, this one counted."""
    return int(os.environ.get(VARIABLE, "1"))


def shared_device() -> NotMeasured | None:
    """Return why clock and counter of the device say nothing about one run; None where it works alone."""
    runs = runs_per_device()
    if runs == 1:
        return None
    return NotMeasured(f"up to {runs} runs share the device; measure it alone: python -m kdlab profile RUN")
