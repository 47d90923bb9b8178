"""Energy that adds up over a training, without ever disturbing it."""

from __future__ import annotations

import logging

import torch

from kdlab.profiling.meters import Meter, find_meter
from kdlab.profiling.results import NotMeasured

log = logging.getLogger(__name__)


class EnergyAccount:
    """What a device has used while it was read, over several processes one after the other.

    A counter that cannot be found or read makes the energy "not measured", with the reason, for the whole training:
    a part of it would be no answer. Nothing is raised.

    Attributes:
        spent_mj: gross, up to the last reading; meaningless once something is missing.
        missing: why the energy of some part is not known; None while it is.
        meter: name of the counter; None without one.
    """

    def __init__(self) -> None:
        self.spent_mj = 0.0
        self.missing: str | None = None
        self.meter: str | None = None
        self._meter: Meter | None = None
        self._last = 0.0

    def open(self, device: torch.device) -> None:
        """Find the counter of `device` and start from what it says."""
        try:
            meter = find_meter(device)
            if isinstance(meter, NotMeasured):
                self.give_up(meter.reason)
            else:
                self._last = meter.energy_mj()
                self._meter, self.meter = meter, meter.name
        except Exception as error:  # drivers raise what they like, and a training must not end over a figure
            self.give_up(f"{type(error).__name__}: {error}")

    def read(self) -> None:
        """Add what was used since the last reading."""
        if self._meter is None:
            return
        try:
            now = self._meter.energy_mj()
        except Exception as error:  # as above
            self.give_up(f"{self._meter.name} could not be read any more: {type(error).__name__}: {error}")
            log.warning("the energy of the training is not measured: %s", self.missing)
        else:
            self.spent_mj, self._last = self.spent_mj + now - self._last, now

    def close(self) -> None:
        """Read once more, and then no more: what is used after the training is no part of it."""
        self.read()
        self._meter = None

    def give_up(self, reason: str) -> None:
        """Measure no more."""
        self.missing = self.missing or reason
        self._meter = self.meter = None
