"""What is not measured while other runs work on the same device."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdlab.profiling import LatencyProfiler, NotMeasured
from kdlab.profiling.meters import find_meter
from kdlab.profiling.sharing import VARIABLE, runs_per_device, shared_device

SHARED = NotMeasured("up to 6 runs share the device; measure it alone: python -m kdlab profile RUN")


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.setenv(VARIABLE, "6")


def test_a_process_of_its_own_is_alone(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (runs_per_device(), shared_device()) == (1, None)


def test_a_counter_of_all_runs_is_no_counter_of_one(shared, tmp_path, monkeypatch):
    monkeypatch.setattr("kdlab.profiling.meters.RAPL", tmp_path)
    assert find_meter(torch.device("cpu")) == NotMeasured(f"no RAPL energy counter in {tmp_path}")
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, content in (("name", "package-0"), ("energy_uj", "5000"), ("max_energy_range_uj", "9000")):
        (zone / name).write_text(content)
    assert find_meter(torch.device("cpu")) == SHARED
    monkeypatch.setenv(VARIABLE, "1")
    assert find_meter(torch.device("cpu")).energy_mj() == 5.0


def test_a_gpu_that_others_use_has_no_latency(shared):
    assert LatencyProfiler().measure(nn.Identity(), SimpleNamespace(is_cuda=True)) == SHARED


def test_a_processor_that_is_shared_has_one(shared):  # each run has threads of its own
    found = LatencyProfiler(batch_size=1, seconds=0.01).measure(nn.Flatten(), torch.zeros(1, 3, 4, 4))
    assert found.runs[0].wall.p50 > 0
