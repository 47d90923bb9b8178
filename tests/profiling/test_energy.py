"""The energy callback: honest without a counter, complete with one."""

import json
import time

import pytest
import torch

from kdlab.errors import UsageError
from kdlab.models import DigitsConv
from kdlab.profiling import EnergyProfiler, NotMeasured, energy
from kdlab.profiling.energy_windows import EnergyWindows, Stand, Window


class Counter:
    name = "a counter"

    def energy_mj(self):
        return 0.0

    def conditions(self):
        return {}


def test_without_a_counter_energy_is_null_with_a_reason_at_once(monkeypatch):
    monkeypatch.setattr(energy, "find_meter", lambda device: NotMeasured("no counter"))
    profiler = EnergyProfiler()
    begin = time.monotonic()
    profiler.profile(DigitsConv(), (1, 8, 8))
    assert time.monotonic() - begin < 10  # the protocol takes a minute
    assert profiler.as_dict() == {
        "energy_mj_per_image": None, "energy_mj_per_batch": None, "net_energy_mj_per_image": None,
        "net_energy_mj_per_batch": None, "reason": "no counter",
    }  # fmt: skip
    assert profiler.as_metrics() == {}
    assert str(profiler.result) == "not measured (no counter)"
    assert "mJ" not in json.dumps(profiler.as_dict())


@pytest.fixture
def five_windows(monkeypatch):
    """A counter, and what a stand measures with it."""
    conditions = {"temperature_c": 50}

    def windows(stand, timetable):
        assert timetable.windows == 5
        stand.run(2)
        load = tuple(Window(mj, 5.0, 100) for mj in (400_000.0, 410_000.0, 390_000.0, 400_000.0, 400_000.0))
        return EnergyWindows(0.1, Window(100_000.0, 5.0, 0), Window(110_000.0, 5.0, 0), load, conditions)

    monkeypatch.setattr(energy, "find_meter", lambda device: Counter())
    monkeypatch.setattr(Stand, "measure", windows)
    return conditions


@pytest.mark.usefixtures("five_windows")
def test_with_a_counter_the_figures_are_those_of_its_windows():
    profiler = EnergyProfiler(batch_size=8)
    result = profiler.profile(DigitsConv(), (1, 8, 8))
    # 400 J in 100 iterations of 8 images, 5 s; idle 21 W in the mean of 20 and 22
    assert result.energy_mj_per_batch == pytest.approx(4000.0)
    assert result.energy_mj_per_image == pytest.approx(500.0)
    assert result.net_energy_mj_per_image == pytest.approx(500.0 - 21e3 * 5.0 / 800)
    assert result.energy_spread == pytest.approx(0.05)
    assert result.mean_watts == pytest.approx(80.0)
    assert result.idle_drift_watts == pytest.approx(2.0)
    assert result.quantisation_bound == pytest.approx(0.04)
    assert result.net_energy_bound_mj_per_image == pytest.approx(0.04 * (500 + 131.25) + 1e3 * 5 / 800)
    assert (result.meter, result.conditions, result.dtype) == ("a counter", {"temperature_c": 50}, "float32")
    assert result.notes == ()
    metrics = profiler.as_metrics()
    assert metrics["profile/energy_mj_per_image"] == pytest.approx(500.0)
    assert metrics["profile/net_energy_mj_per_image"] == pytest.approx(368.75)


@pytest.mark.parametrize(
    ("state", "note"),
    [
        ({"other_processes": 2}, "2 other process(es) on the device; what they used is in the figures"),
        ({"mig": True}, "the board is cut into MIG slices; the figures are of the whole board"),
        ({"other_processes": 0, "mig": False}, None),
        ({"other_processes": None, "mig": None}, None),
    ],
)
def test_what_else_is_in_the_figures_is_a_note(five_windows, caplog, state, note):
    five_windows |= state
    result = EnergyProfiler(batch_size=8).profile(DigitsConv(), (1, 8, 8))
    assert result.notes == (() if note is None else (note,))
    assert [record.message for record in caplog.records] == ([] if note is None else [f"energy of DigitsConv: {note}"])


def test_the_workload_is_the_network_on_a_whole_batch_so_many_times():
    calls = []
    energy._repeat(calls.append, torch.zeros(8, 1, 8, 8))(3)
    assert [tuple(batch.shape) for batch in calls] == [(8, 1, 8, 8)] * 3


def test_a_counter_that_stands_still_is_reported(monkeypatch):
    monkeypatch.setattr(energy, "find_meter", lambda device: Counter())
    monkeypatch.setattr("kdlab.profiling.energy_windows.POLL_SECONDS_AT_MOST", 0.02)
    result = EnergyProfiler().profile(DigitsConv(), (1, 8, 8))
    assert result == NotMeasured("a counter did not advance twice within 0.02 s")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, but it must be at least 1: images per iteration; 128 is usual"),
        (
            {"window_s": 2.5},
            "window_s is 2.5, but it must be at least 5: many counters advance only ten times a second",
        ),
        ({"windows": 1}, "windows is 1, but it must be at least 2: one window has no spread"),
        ({"cooldown_s": -1.0}, "cooldown_s is -1, but it must be at least 0: seconds of rest; 2 is usual"),
        ({"warmup_s": -1.0}, "warmup_s is -1, but it must be at least 0: seconds of load; 3 is usual"),
    ],
)
def test_arguments_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(UsageError) as caught:
        EnergyProfiler(**arguments)
    assert str(caught.value) == message
