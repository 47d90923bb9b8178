"""The protocol of an energy measurement, on any meter: counter step, idle power, warm-up, windows.

1. Watch the counter for a second or more, until it has advanced twice: how often it does differs between boards.
2. Measure an idle window.
3. Warm up.
4. Measure windows under load, each of whole iterations, with a pause after each. Note the state of the device while it
   is still hot.
5. Measure a second idle window: what idles before may idle differently when it is warm.

A reading is late by one step of the counter at most, so a window of T seconds is wrong by 2 step / T at most.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdlab.profiling.meters import Meter
from kdlab.profiling.results import NotMeasured
from kdlab.profiling.timing import Clock

POLL_SECONDS = 1.0
POLL_SECONDS_AT_MOST = 5.0  # for a counter that has not advanced twice by then
POLL_EVERY = 0.0005
BLOCK_SECONDS = 0.05  # of iterations between two looks at the clock, about


@dataclass(frozen=True)
class Timetable:
    """How long each part of the protocol takes.

    Attributes:
        window_s: seconds of each window, idle ones included, at least.
        windows: how many under load.
        cooldown_s: seconds of rest after each window under load.
        warmup_s: seconds of load before the first.
    """

    window_s: float = 5.0
    windows: int = 5
    cooldown_s: float = 2.0
    warmup_s: float = 3.0


@dataclass(frozen=True)
class Window:
    """What lies between two readings of a meter.

    Attributes:
        energy_mj: energy, millijoules.
        seconds: time.
        iterations: how often the work was done.
    """

    energy_mj: float
    seconds: float
    iterations: int

    @property
    def watts(self) -> float:
        """Mean power, watts."""
        return self.energy_mj / 1e3 / self.seconds


@dataclass(frozen=True)
class EnergyWindows:
    """What the protocol yields.

    Attributes:
        step_s: longest time between two advances of the counter.
        idle_before: the idle window before the load.
        idle_after: the idle window after it.
        load: the windows under load.
        conditions: of the device when the last of them had just ended.
    """

    step_s: float
    idle_before: Window
    idle_after: Window
    load: tuple[Window, ...]
    conditions: dict[str, Any]

    @property
    def stood_still_idle(self) -> bool:
        """Whether the counter did not advance in an idle window, so that nobody knows what idling costs."""
        return min(self.idle_before.energy_mj, self.idle_after.energy_mj) <= 0


@dataclass
class Stand:
    """A meter, a workload and the time, put together; simulated ones in tests.

    Attributes:
        meter: the counter.
        run: runs so many iterations and returns when they are done.
        clock: seconds.
        sleep: waits for so many seconds.
    """

    meter: Meter
    run: Callable[[int], None]
    clock: Clock = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    def measure(self, timetable: Timetable) -> EnergyWindows | NotMeasured:
        """Follow the protocol."""
        step = self.observe_step()
        if step is None:
            return NotMeasured(f"{self.meter.name} did not advance twice within {POLL_SECONDS_AT_MOST:g} s")
        idle_before = self._window(lambda: self._rest(timetable.window_s))
        block = self._warm_up(timetable.warmup_s)
        load: list[Window] = []
        conditions: dict[str, Any] = {}
        for _ in range(timetable.windows):
            load.append(self._window(lambda: self._work(timetable.window_s, block)))
            conditions = self.meter.conditions()
            self.sleep(timetable.cooldown_s)
        idle_after = self._window(lambda: self._rest(timetable.window_s))
        if min(window.energy_mj for window in load) <= 0:
            return NotMeasured(f"{self.meter.name} stood still under load")
        return EnergyWindows(step, idle_before, idle_after, tuple(load), conditions)

    def observe_step(self) -> float | None:
        """Poll the counter; return the longest time between two advances, or None if there are no two."""
        begin = self.clock()
        changes: list[float] = []
        last = self.meter.energy_mj()
        while (now := self.clock()) - begin < (POLL_SECONDS if len(changes) >= 2 else POLL_SECONDS_AT_MOST):
            if (value := self.meter.energy_mj()) != last:
                last = value
                changes.append(now)
            self.sleep(POLL_EVERY)
        return max((b - a for a, b in itertools.pairwise(changes)), default=None)

    def _warm_up(self, seconds: float) -> int:
        """Run for so long; return how many iterations make a block."""
        begin, block, stop = self.clock(), 1, 0.0
        while stop - begin < seconds:
            start = self.clock()
            self.run(block)
            stop = self.clock()
            if stop - start < BLOCK_SECONDS / 2:
                block *= 2
        return block

    def _window(self, fill: Callable[[], int]) -> Window:
        energy, start = self.meter.energy_mj(), self.clock()
        iterations = fill()
        return Window(self.meter.energy_mj() - energy, self.clock() - start, iterations)

    def _rest(self, seconds: float) -> int:
        self.sleep(seconds)
        return 0

    def _work(self, seconds: float, block: int) -> int:
        begin, iterations = self.clock(), 0
        while self.clock() - begin < seconds:
            self.run(block)
            iterations += block
        return iterations
