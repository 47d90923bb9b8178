"""The protocol on a simulated counter: coarse steps, starting again, standing still, idle drift."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from kdlab.profiling import NotMeasured, energy_windows
from kdlab.profiling.energy import summarize
from kdlab.profiling.energy_windows import Stand, Timetable
from kdlab.profiling.meters import UnwrappedCounter

spec = importlib.util.spec_from_file_location("simulation", Path(__file__).with_name("simulation.py"))
simulation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(simulation)
Board = simulation.Board

BATCH = 16


class Unwrapped:
    """The meter of a board whose counter starts again."""

    name = "an unwrapped counter"

    def __init__(self, board):
        self.energy_mj = UnwrappedCounter(board.energy_mj, board.capacity)

    def conditions(self):
        return {}


def stand(board, meter=None):
    return Stand(meter or board, board.run, board.clock, board.sleep)


def measured(board, meter=None, timetable=Timetable()):  # noqa: B008 (frozen)
    windows = stand(board, meter).measure(timetable)
    return windows, summarize(windows, BATCH, dtype="", meter=board.name, device="")


def test_a_fine_counter_gives_gross_and_net_energy_by_hand():
    # 40 W idle, 100 W at work, 3 ms for 16 images: 300 mJ gross and 180 mJ net per batch
    _, profile = measured(Board(40.0, 60.0, step=1e-4))
    assert profile.energy_mj_per_batch == pytest.approx(300.0, rel=1e-4)
    assert profile.energy_mj_per_image == pytest.approx(300.0 / 16, rel=1e-4)
    assert profile.net_energy_mj_per_batch == pytest.approx(180.0, rel=1e-3)
    assert profile.net_energy_mj_per_image == pytest.approx(180.0 / 16, rel=1e-3)
    assert profile.mean_watts == pytest.approx(100.0, rel=1e-4)
    assert profile.idle_watts == pytest.approx(40.0, rel=1e-4)
    assert profile.energy_spread < 1e-3
    assert profile.batch_size == 16


@pytest.mark.parametrize("step", [0.010, 0.020, 0.100])
def test_the_step_of_the_counter_is_observed(step):
    board = Board(50.0, 100.0, step, phase=0.0037)
    assert stand(board).observe_step() == pytest.approx(step, abs=0.001)  # polled every half millisecond


@pytest.mark.parametrize("step", [0.7, 1.6, 2.3])
def test_a_slow_counter_is_watched_until_it_has_advanced_twice(step):
    # declared a step of 1 s, a counter of 1.6 s would have a bound that is too small by a third
    board = Board(50.0, 100.0, step, phase=0.5)
    assert stand(board).observe_step() == pytest.approx(step, abs=0.001)
    _, profile = measured(Board(50.0, 100.0, step, phase=0.5))
    assert profile.quantisation_bound == pytest.approx(2 * step / 5, rel=0.01)
    assert abs(profile.energy_mj_per_batch - 450.0) <= profile.energy_bound_mj_per_image * BATCH  # 150 W for 3 ms


def test_a_counter_that_does_not_advance_twice_in_five_seconds_is_not_measured():
    board = Board(50.0, 100.0, step=4.0, phase=3.0)
    expected = NotMeasured("a simulated counter did not advance twice within 5 s")
    assert stand(board).measure(Timetable()) == expected
    assert board.now == pytest.approx(5.0, abs=0.001)


@pytest.mark.parametrize("step", [0.010, 0.020, 0.100])
def test_one_thousand_simulated_runs_are_within_the_stated_bound(step, monkeypatch):
    monkeypatch.setattr(energy_windows, "POLL_EVERY", 0.004)  # enough for these steps, and a third of the time
    monkeypatch.setattr(energy_windows, "BLOCK_SECONDS", 0.5)
    dice = random.Random(int(1e3 * step))
    for _ in range(334):
        board = Board(
            idle_watts=dice.uniform(10, 90), load_watts=dice.uniform(5, 400), step=step, phase=dice.uniform(0, step),
            iteration_s=10 ** dice.uniform(-3.5, -0.5), drift=dice.uniform(-0.05, 0.05),
            capacity=dice.uniform(4e6, 9e6), first=dice.uniform(0, 9e6),
        )  # fmt: skip
        windows, profile = measured(board, Unwrapped(board))
        assert all(window.seconds >= 5 for window in windows.load)
        truth = board.true_energy_mj(sum(profile.iterations)) / BATCH
        assert abs(profile.energy_mj_per_image - truth) <= profile.energy_bound_mj_per_image
        assert profile.energy_bound_mj_per_image <= 1.8 * step / 5 * 2 * truth  # the bound itself stays small
        net = 1e3 * board.load_watts * board.iteration_s / BATCH  # exactly what work adds to idling
        assert abs(profile.net_energy_mj_per_image - net) <= profile.net_energy_bound_mj_per_image


def test_the_bound_is_two_steps_over_the_shortest_window():
    windows, profile = measured(Board(50.0, 100.0, step=0.1))
    shortest = min(window.seconds for window in windows.load)
    assert profile.quantisation_bound == pytest.approx(2 * windows.step_s / min(5.0, shortest))
    assert profile.energy_bound_mj_per_image == pytest.approx(profile.quantisation_bound * profile.energy_mj_per_image)
    assert profile.quantisation_bound == pytest.approx(0.04, rel=0.01)  # 4% at 100 ms and 5 s


def test_windows_end_on_an_iteration_and_last_five_seconds_at_least():
    board = Board(50.0, 100.0, step=0.01, iteration_s=0.37)
    windows, _ = measured(board)
    assert len(windows.load) == 5
    for window in windows.load:
        assert window.seconds == pytest.approx(window.iterations * 0.37)
        assert 5.0 <= window.seconds < 5.0 + 0.37
    for idle in (windows.idle_before, windows.idle_after):
        assert idle.seconds == pytest.approx(5.0)
        assert idle.iterations == 0
        assert idle.watts == pytest.approx(50.0, rel=0.01)


def test_an_iteration_that_outlasts_the_window_makes_it_longer():
    windows, _ = measured(Board(50.0, 100.0, step=0.01, iteration_s=12.0))
    assert [(w.iterations, w.seconds) for w in windows.load] == [(1, pytest.approx(12.0))] * 5


def test_the_protocol_takes_the_time_of_its_timetable():
    board = Board(50.0, 100.0, step=0.01)
    measured(board, timetable=Timetable(window_s=6.0, windows=3, cooldown_s=4.0, warmup_s=2.0))
    expected = 1 + 6 + 2 + 3 * (6 + 4) + 6  # step, idle, warm-up, windows, idle
    assert expected <= board.now < expected + 1


def test_a_counter_that_starts_again_gives_the_same_figure_as_one_that_does_not():
    straight = measured(Board(50.0, 100.0, step=0.02))[1]
    board = Board(50.0, 100.0, step=0.02, capacity=1_000_000.0)
    wrapped = measured(board, Unwrapped(board))[1]
    assert board.energy > 4 * board.capacity
    assert wrapped.energy_mj_per_image == pytest.approx(straight.energy_mj_per_image)


def test_idle_drift_is_reported_and_widens_the_net_bound():
    steady = measured(Board(50.0, 100.0, step=0.02))[1]
    drifting = measured(Board(50.0, 100.0, step=0.02, drift=0.2))[1]
    # from the middle of the first idle window to that of the last: warm-up 3, 5 windows and pauses, 5 idle
    assert drifting.idle_drift_watts == pytest.approx(0.2 * (5 + 3 + 5 * (5 + 2)), rel=0.03)
    assert steady.idle_drift_watts == pytest.approx(0.0, abs=1e-6)
    assert drifting.net_energy_bound_mj_per_image > 2 * steady.net_energy_bound_mj_per_image


def test_a_counter_that_stands_still_is_not_measured():
    board = Board(50.0, 100.0, step=0.02)
    board.stuck = True
    assert stand(board).measure(Timetable()) == NotMeasured("a simulated counter did not advance twice within 5 s")
    assert board.now < 5.01  # and no more time is lost on it


def test_a_counter_that_stops_under_load_is_not_measured():
    board = Board(50.0, 100.0, step=0.02)
    run = board.run

    def stop_and_run(iterations):
        board.stuck = True
        run(iterations)

    board.run = stop_and_run
    assert stand(board).measure(Timetable()) == NotMeasured("a simulated counter stood still under load")


@pytest.mark.parametrize("idle", ["before", "after"])
def test_a_counter_that_stands_still_idle_gives_no_net_energy_and_says_why(idle):
    board = Board(50.0, 100.0, step=0.01)
    sleep, run = board.sleep, board.run

    def sleep_stuck(seconds):
        board.stuck = seconds == 5.0 and (idle == "before") == (not board.work)  # in one of the idle windows
        sleep(seconds)

    def run_counting(iterations):
        board.stuck = False
        run(iterations)

    board.sleep, board.run = sleep_stuck, run_counting
    profile = measured(board)[1]
    assert profile.energy_mj_per_batch == pytest.approx(450.0, rel=0.02)
    assert profile.net_reason == "a simulated counter stood still while the device was idle"
    figures = profile.metrics()
    for name in ("net_energy_mj_per_image", "net_energy_mj_per_batch", "net_energy_bound_mj_per_image", "idle_watts"):
        assert figures[name] is None
    assert profile.idle_drift_watts is None


def test_a_counter_that_always_advances_has_no_reason_against_its_net_energy():
    profile = measured(Board(50.0, 100.0, step=0.01))[1]
    assert profile.net_reason is None
    assert profile.net_energy_mj_per_batch == pytest.approx(300.0, rel=0.02)  # 100 W more than idle, for 3 ms


def test_the_state_of_the_device_is_read_while_it_is_hot():
    board = Board(50.0, 100.0, step=0.01)
    board.conditions = lambda: {"read_at_s": board.now, "worked_until_s": worked[-1]}
    worked, run = [], board.run

    def run_noting(iterations):
        run(iterations)
        worked.append(board.now)

    board.run = run_noting
    windows, profile = measured(board)
    assert windows.conditions["read_at_s"] == windows.conditions["worked_until_s"] == worked[-1]  # of all
    assert profile.conditions == windows.conditions


def test_spread_says_that_windows_differ():
    board = Board(50.0, 100.0, step=1e-3)
    run = board.run

    def throttle(iterations):
        board.iteration_s = 0.003 if board.now < 20 else 0.006  # as when a hot board slows down
        run(iterations)

    board.run = throttle
    assert measured(board)[1].energy_spread > 0.5
