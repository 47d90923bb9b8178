"""Meters on made-up counters: folders like RAPL's, and a driver like NVML."""

# ruff: noqa: N802 (the names of NVML)

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from kdlab.profiling import NotMeasured, meters
from kdlab.profiling.meters import NVMLMeter, RAPLMeter, UnwrappedCounter, find_meter, nvml_meter, rapl_meter


def zone(root, folder, name, energy_uj, capacity_uj=262_143_328_850):
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{capacity_uj}\n")
    return path


def test_a_counter_that_starts_again_never_falls():
    readings = iter([95, 98, 3, 50, 50, 99, 1])
    counter = UnwrappedCounter(lambda: next(readings), capacity=100)
    assert [counter() for _ in range(6)] == [98, 103, 150, 150, 199, 201]


def test_rapl_adds_the_packages_and_leaves_out_their_parts(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 5_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 4_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 7_000)
    zone(tmp_path, "intel-rapl:2", "psys", 90_000)
    meter = rapl_meter(tmp_path)
    assert isinstance(meter, RAPLMeter)
    assert meter.name == "RAPL package-0 + package-1"
    before = meter.energy_mj()
    (first / "energy_uj").write_text("8_500")
    assert meter.energy_mj() - before == pytest.approx(3.5)
    assert set(meter.conditions()) == {"load_1_min", "cpu_count"}


def test_each_package_of_rapl_starts_again_on_its_own(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 9_000, capacity_uj=10_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 1_000, capacity_uj=20_000)
    meter = rapl_meter(tmp_path)
    before = meter.energy_mj()
    (first / "energy_uj").write_text("500")  # 1,500 on
    (second / "energy_uj").write_text("1_200")
    assert meter.energy_mj() - before == pytest.approx(1.7)


def test_a_machine_without_rapl_says_so(tmp_path):
    assert rapl_meter(tmp_path) == NotMeasured(f"no RAPL energy counter in {tmp_path}")
    assert rapl_meter(tmp_path / "missing") == NotMeasured(f"no RAPL energy counter in {tmp_path / 'missing'}")


def test_rapl_that_only_an_administrator_may_read_says_what_to_do(tmp_path):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 5_000)
    (path / "energy_uj").unlink()
    (path / "energy_uj").mkdir()  # unreadable for every user, root too
    meter = rapl_meter(tmp_path)
    assert isinstance(meter, NotMeasured)
    assert (
        meter.reason
        == f"RAPL is not readable (Is a directory); let an administrator run: chmod a+r {tmp_path}/*-rapl:*/energy_uj"
    )


class Driver(ModuleType):
    """As much of pynvml as the meter asks for: two boards, of which the second has little to say."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__("pynvml")
        self.boards = {"GPU-aaaa": 7_000, "GPU-bbbb": 9_000}
        self.refuses: set[str] = set()

    def _answer(self, name, value):
        if name in self.refuses:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlInit(self):
        self._answer("init", None)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid not in self.boards:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetName(self, handle):
        return "Some Board"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._answer("energy", self.boards[handle])

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return self._answer("limit", 300_000)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self._answer("processes", [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=-1)])

    def nvmlDeviceGetMigMode(self, handle):
        return self._answer("mig", [1, 1])

    def nvmlDeviceGetTemperature(self, handle, kind):
        return self._answer("temperature", 61)

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return self._answer("clock", 1410)


@pytest.fixture
def driver(monkeypatch):
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    return driver


@pytest.mark.parametrize("uuid", ["bbbb", "GPU-bbbb"])
def test_the_board_is_found_by_its_uuid(driver, uuid):
    meter = nvml_meter(uuid)
    assert isinstance(meter, NVMLMeter)
    assert meter.name == "NVML total energy of Some Board (GPU-bbbb)"
    assert meter.energy_mj() == 9_000.0
    driver.boards["GPU-bbbb"] += 250
    assert meter.energy_mj() == 9_250.0


def test_the_meter_of_a_torch_device_is_that_of_its_uuid(driver, monkeypatch):
    # as under CUDA_VISIBLE_DEVICES: torch's device 0 is the second board
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="bbbb"))
    assert find_meter(torch.device("cuda:0")).energy_mj() == 9_000.0


def test_conditions_of_a_board_are_in_units_of_their_names(driver):
    assert nvml_meter("aaaa").conditions() == {
        "temperature_c": 61, "sm_clock_mhz": 1410, "power_limit_w": 300.0, "other_processes": 1, "mig": True,
    }  # fmt: skip


def test_conditions_that_a_board_does_not_tell_are_none(driver):
    driver.refuses = {"temperature", "clock", "limit", "processes", "mig"}
    assert set(nvml_meter("aaaa").conditions().values()) == {None}


@pytest.mark.parametrize(
    ("refused", "uuid", "message"),
    [("init", "aaaa", "Not Supported"), ("energy", "aaaa", "Not Supported"), ("", "cccc", "Not Found")],
)
def test_a_board_without_a_counter_says_why(driver, refused, uuid, message):
    driver.refuses = {refused}
    assert nvml_meter(uuid) == NotMeasured(f"NVML has no energy counter for GPU-{uuid}: {message}")


def test_the_real_package_has_every_name_that_the_meter_asks_for():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    asked = [name for name in dir(Driver) if name.startswith(("nvml", "NVML"))]
    assert len(asked) >= 11
    assert [name for name in asked if not hasattr(pynvml, name)] == []


def test_a_processor_is_asked_for_rapl_and_other_devices_have_no_meter(tmp_path, monkeypatch):
    monkeypatch.setattr(meters, "RAPL", tmp_path)
    assert find_meter(torch.device("cpu")) == NotMeasured(f"no RAPL energy counter in {tmp_path}")
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000)
    assert find_meter(torch.device("cpu")).energy_mj() == 5.0
    assert find_meter(torch.device("meta")) == NotMeasured("kdlab knows no energy counter of meta devices")
