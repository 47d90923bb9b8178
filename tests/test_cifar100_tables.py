"""The program that makes the CIFAR-100 tables in slices, on a study of the digits."""

import csv
import importlib
import json
import sys
import time
from pathlib import Path

import pytest

from kdlab.studies.plan import PlannedRun
from kdlab.studies.results import Row

ROOT = Path(__file__).parents[1]
STUDY = """
seeds: [0, 1]
set: {trainer.max_epochs: 2, profile: false}
teachers: {wide: {base: digits/teacher}}
variants:
  independent: {base: digits/independent}
  distilled: {base: digits/logit_matching, set: {model.teacher.checkpoint: "@wide"}}
quick: {seeds: [0]}
"""


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("cifar100")


def test_every_table_has_its_studies(tables):
    for name in (name for names in tables.TABLES.values() for name in names):
        assert (ROOT / "configs" / "studies" / f"{name}.yaml").is_file()
    assert {*tables.ALONE, *tables.PROFILED} <= tables.TABLES.keys()


def test_a_command_is_stopped_when_the_time_is_over(tables):
    began = time.monotonic()
    asleep = ["timeit", "-n", "1", "-r", "1", "-s", "import time", "time.sleep(60)"]
    assert tables.run_until(asleep, began + 1) is None
    assert time.monotonic() - began < 30
    assert tables.run_until(["platform"], time.monotonic() + 60) == 0
    assert tables.run_until(["json.tool", "/no/such/file"], time.monotonic() + 60) == 2


def test_a_line_of_costs_is_by_hand(tables):
    result = {"student": {"network": "Net", "parameters": 10}}
    rows = [
        Row(PlannedRun("a", "student", "kd", {}, seed, (), ()), Path(), {}, json.loads(json.dumps(result)))
        for seed in (0, 1)
    ]
    for row, top1, top5 in zip(rows, (0.5, 0.7), (0.8, 0.9), strict=True):
        row.result["student"]["test"] = {"accuracy": top1, "top5": top5}
    costs = {
        "latency": {"runs": [{"variant": "eager", "batch_size": 1, "latency_ms_p50": 2.5}]},
        "size": {"size_bytes": 99}, "macs": {"macs": 7}, "energy": {"reason": "no counter"},
    }  # fmt: skip
    found = tables.costs_line("kd", rows, costs)
    assert found == {
        "cell": "kd", "network": "Net, 10", "n": 2, "top1": 60.0, "top1_half_width": pytest.approx(12.706 * 10, rel=1e-4),
        "top5": pytest.approx(85.0), "latency_ms_p50_at_1": 2.5, "size_bytes": 99, "macs": 7,
        "energy_mj_per_image": None, "energy_reason": "no counter",
    }  # fmt: skip


@pytest.mark.slow
def test_a_table_is_made_in_slices_on_two_machines(tables, tmp_path, monkeypatch, capfd):
    studies = tmp_path / "checkout" / "configs" / "studies"
    studies.mkdir(parents=True)
    (studies / "digits_small.yaml").write_text(STUDY)
    monkeypatch.setattr(tables, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(tables, "TABLES", {"techniques": ("digits_small",)})

    def work(machine, *more):
        (tmp_path / machine).mkdir()
        monkeypatch.chdir(tmp_path / machine)
        common = ["cifar100.py", "techniques", "--quick", "--data_dir", "data", "--jobs", "2", "--out", "out"]
        monkeypatch.setattr(sys, "argv", [*common, *more])
        return tables.main()

    assert work("none", "--minutes", "1e-6", "--carry_out", "carry") == tables.MORE_TO_DO
    assert "digits_small-quick: not begun" in capfd.readouterr().out
    with monkeypatch.context() as patch:  # the time is over before the costs are measured
        patch.setattr(tables, "measure_costs", lambda *_: None)
        assert work("one", "--minutes", "9", "--carry_out", "carry") == tables.MORE_TO_DO
    assert not (tmp_path / "one" / "out").exists()
    assert "digits_small-quick: 3 done\nmore to do: the same command" in capfd.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(tables, "measure_costs", lambda *_: 4)
        assert work("broken", "--minutes", "9", "--carry_in", str(tmp_path / "one" / "carry")) == 1
    assert "digits_small: exit code 4" in capfd.readouterr().out
    assert work("two", "--minutes", "9", "--carry_in", str(tmp_path / "one" / "carry")) == 0
    out = tmp_path / "two" / "out" / "digits_small"
    assert {"summary.json", "results.csv", "costs.json", "costs.csv"} <= {path.name for path in out.iterdir()}
    lines = list(csv.DictReader((out / "costs.csv").open()))
    assert [line["cell"] for line in lines] == ["independent", "distilled", "wide (teacher)"]
    assert len({line["latency_ms_p50_at_1"] for line in lines}) == 2  # equal networks are measured once
    assert all(float(line["top5"]) >= float(line["top1"]) > 0 for line in lines)


@pytest.mark.slow
def test_the_smoke_table_goes_on_after_a_failure(tables, tmp_path, monkeypatch, capfd):
    studies = tmp_path / "checkout" / "configs" / "studies"
    studies.mkdir(parents=True)
    costs = "[{class_path: TrainingCost}, {class_path: LatencyProfiler, init_args: {seconds: 0.01}}]"
    study = STUDY.replace("profile: false", f"profile: false, trainer.callbacks+: {costs}")
    broken = "variants:\n  broken: {base: digits/independent, set: {model.optimizer.lr: 1.0e+30}}"
    (studies / "digits_smoke.yaml").write_text(study.replace("variants:", broken))
    (tmp_path / "checkout" / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "checkout" / "tests" / "gpu" / "test_none.py").write_text("def test_it(): pass\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(tables, "TABLES", {"smoke": ("digits_smoke",)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cifar100.py", "smoke", "--quick", "--data_dir", "data", "--minutes", "9"])
    assert tables.main() == 1
    said = capfd.readouterr().out
    assert "digits_smoke: exit code 6" in said
    assert "broken, seed 0 is not done" in said
    assert all(
        any(line.startswith(name) for line in said.splitlines()) for name in ("wide", "independent", "distilled")
    )
    assert "tests/gpu: exit code 5" in said  # no test is marked
