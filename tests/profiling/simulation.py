"""A board with a simulated energy counter, and the clock it lives by."""

from __future__ import annotations

import math


class Board:
    """Draws ``idle_watts`` (changing by `drift` watts per second), plus ``load_watts`` while it works.

    Its counter shows the energy of the last multiple of `step` seconds after `phase`, and starts again at `capacity`
    millijoules.
    """

    name = "a simulated counter"

    def __init__(
        self, idle_watts, load_watts, step, *, iteration_s=0.003, phase=0.0, drift=0.0, capacity=math.inf, first=0.0
    ):
        self.idle_watts, self.load_watts, self.iteration_s = idle_watts, load_watts, iteration_s
        self.step, self.phase, self.drift, self.capacity = step, phase, drift, capacity
        self.now, self.energy = 0.0, first  # seconds, true mJ
        self._shown = first
        self.stuck = False
        self.work = []  # true (mJ, iterations) of each run
        self.reads = 0

    # what the stand sees

    def energy_mj(self):
        self.reads += 1
        return math.fmod(self._shown, self.capacity)

    def conditions(self):
        return {}

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self._pass(seconds, 0.0)

    def run(self, iterations):
        before = self.energy
        self._pass(iterations * self.iteration_s, self.load_watts)
        self.work.append((self.energy - before, iterations))

    # what really happens

    def _pass(self, seconds, extra_watts):
        start, stop = self.now, self.now + seconds
        tick = math.floor((stop - self.phase) / self.step) * self.step + self.phase
        if tick > start and not self.stuck:
            self._shown = self.energy + self._used(start, tick, extra_watts)
        self.energy += self._used(start, stop, extra_watts)
        self.now = stop

    def _used(self, start, stop, extra_watts):
        return 1e3 * ((self.idle_watts + extra_watts) * (stop - start) + self.drift * (stop**2 - start**2) / 2)

    def true_energy_mj(self, iterations):
        """Mean true energy of the last so many iterations."""
        energy = counted = 0
        for mj, n in reversed(self.work):
            if counted >= iterations:
                break
            energy, counted = energy + mj, counted + n
        return energy / counted
