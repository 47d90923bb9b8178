"""Benchmarks: what they share, that they have a help, and that each result says where it was measured."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from kdlab.methods import IndependentStudent
from kdlab.types import Batch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARTNERS = {
    "plain_loop.py",
    "training_steps.py",
    "kdlab_epochs.py",
    "torchdistill_epochs.py",
    "repdistiller_epochs.py",
    "tables.py",
}  # processes that benchmarks start, and what writes their tables into the pages
SCRIPTS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text() and path.name not in PARTNERS
)
RESULTS = sorted(path for path in (BENCHMARKS / "results").rglob("*.json") if "studies" not in path.parts)
# at the start of a text or of a word in it; "images / s" is none, and /sys is the same on every machine
ABSOLUTE_PATH = re.compile(r"(?:^|[\s=:'\"(,])(?:/(?!sys/|proc/)\w|~/|[A-Za-z]:\\)")


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Benchmarks import each other by name: their folder is in front, as when one of them is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def measuring(as_a_script: None) -> ModuleType:
    return importlib.import_module("measuring")


# -- numbers --------------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_and_both_ends(measuring: ModuleType) -> None:
    assert measuring.spread([3.0, 1.0, 7.0]) == {"median": 3.0, "min": 1.0, "max": 7.0}
    assert measuring.spread([4.0, 1.0]) == {"median": 2.5, "min": 1.0, "max": 4.0}


def test_a_ratio_is_of_the_same_turn(measuring: ModuleType) -> None:
    turns = [{"fast": 4.0, "plain": 1.0}, {"fast": 9.0, "plain": 3.0}, {"fast": 1.0, "plain": 2.0}]

    found = measuring.ratios(turns, measuring.over(("fast", "plain")) | {"cost": ("plain", "fast")})

    assert found["fast / plain"] == {"median": 3.0, "min": 0.5, "max": 4.0}  # the ratio of medians would be 2
    assert found["cost"] == pytest.approx({"median": 1 / 3, "min": 0.25, "max": 2.0})


def test_each_variant_is_first_in_one_turn_of_as_many(measuring: ModuleType) -> None:
    names = ["a", "b", "c"]
    turns = [measuring.rotated(names, turn) for turn in range(4)]
    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_steps_are_counted_for_some_seconds_behind_one_that_is_not(
    measuring: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, steps=0)

    def step() -> None:
        clock.steps += 1
        clock.now += 10.0 if clock.steps == 1 else 0.5

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    assert measuring.steps_per_s(step, 1.2) == 2.0
    assert clock.steps == 4  # three of half a second are more than 1.2
    assert measuring.steps_per_s(step, 0.0) == 2.0  # at least one


def test_batch_norms_get_the_statistics_of_the_images(measuring: ModuleType) -> None:
    norm = nn.BatchNorm2d(1)
    image = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)

    network = measuring.with_statistics(nn.Sequential(norm), image)

    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert float(norm.running_mean) == 3.0
    assert float(norm.running_var) == 8.0  # ((1 - 3)^2 + (5 - 3)^2) / (2 - 1)
    assert (norm.momentum, network.training) == (0.1, False)
    torch.testing.assert_close(network(image).flatten(), torch.tensor([-2.0, 2.0]) / 8**0.5)


# -- where it was measured ------------------------------------------------------------------------------------


def test_the_command_names_no_folder_of_this_machine(measuring: ModuleType) -> None:
    arguments = ["--data_dir", "/home/somebody/data", "--out=../results/x.json", "/mnt/disk/", "--turns", "3"]

    line = measuring.command_line("benchmarks/cache.py", arguments)

    assert line == "python benchmarks/cache.py --data_dir data --out=x.json disk --turns 3"


def test_the_environment_names_hardware_versions_commit_and_command(measuring: ModuleType) -> None:
    found = measuring.environment(["/somewhere/benchmarks/cache.py", "--data_dir", "/a/b"], ["kdlab/data"], ["numpy"])

    assert found["command"] == "python benchmarks/cache.py --data_dir b"
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert re.fullmatch(r"\d+\.\d+.*", found["versions"]["numpy"])
    assert found["cpu"]
    assert len(found["load_average_before"]) == 3
    assert not paths_in(found)


def test_only_changes_of_the_measured_code_are_listed(
    measuring: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    for name in ("kdlab/data/loader.py", "kdlab/losses/base.py", "benchmarks/cache.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    monkeypatch.setattr(measuring, "HERE", tmp_path / "benchmarks")
    (tmp_path / "kdlab/losses/base.py").write_text("2\n")
    assert measuring.environment(["cache.py"], ["kdlab/data"])["uncommitted_changes"] == []

    (tmp_path / "kdlab/data/loader.py").write_text("2\n")
    (tmp_path / "benchmarks/cache.py").write_text("2\n")
    found = measuring.environment(["cache.py"], ["kdlab/data"])

    assert found["git_commit"] == git("rev-parse", "HEAD").strip()
    assert found["uncommitted_changes"] == [" M benchmarks/cache.py", " M kdlab/data/loader.py"]


def test_outside_a_checkout_the_commit_is_not_known(
    measuring: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all

    found = measuring.environment(["cache.py"], [], ["no-such-package"])

    assert (found["git_commit"], found["uncommitted_changes"]) == (None, None)
    assert found["versions"] == {"no-such-package": None}


def test_instructions_for_matrix_products_are_named(measuring: ModuleType, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Fast\nflags\t\t: fpu amx_tile amx_bf16 avx2 sse\n")

    assert measuring.cpu_features(cpuinfo) == ["amx_bf16", "avx2"]
    assert measuring.cpu_features(tmp_path / "none") == []


def test_the_processor_has_a_name_with_and_without_cpuinfo(measuring: ModuleType, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast: 9000\nprocessor\t: 1\nmodel name\t: Fast: 9000\n")

    assert measuring.cpu_name(cpuinfo) == "Fast: 9000"
    assert measuring.cpu_name(tmp_path / "none")


# -- taking turns -----------------------------------------------------------------------------------------------


def test_a_partner_works_in_its_turn_and_says_why_it_died(measuring: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "counting.py"
    script.write_text(
        f"import json, sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from measuring import Turns\n"
        "turns, told = Turns(), json.loads(sys.argv[1])\n"
        "for count in (1, 2, 3):\n"
        "    assert turns.wait()\n"
        "    print('this is no answer')\n"
        "    if count == 3: sys.exit('three is too much')\n"
        "    turns.answer(total=count * told['step'])\n"
    )
    with measuring.Partner(str(script), {"step": 5}, threads=1) as partner:
        assert [partner.turn(), partner.turn()] == [{"total": 5}, {"total": 10}]
        with pytest.raises(RuntimeError, match=r"counting\.py has died:\n(?s:.*)three is too much"):
            partner.turn()


# -- the same work on both sides ----------------------------------------------------------------------------------


@pytest.fixture
def some_images() -> Any:
    """CIFAR-100 as `kd_step` reads it, of 200 images of noise."""
    cache = importlib.import_module("cache")
    few = type("Few", (cache.RandomImages,), {"num_train_images": 200})
    return few(batch_size=64, val_fraction=0.0, augmentation=cache.RandomCropFlip(4))


def test_pil_makes_the_same_pixels_of_every_view(some_images: Any) -> None:
    view = torch.arange(162)
    split = some_images.train_split
    batch = Batch(split.images[view], split.labels[view], split.index[view], view)

    theirs = importlib.import_module("kd_step").by_pil(some_images, batch)

    # normalised pixels reach 2.1: some roundings of float32
    torch.testing.assert_close(some_images.training_view(batch).image, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("factor", "message"), [(1.0, None), (1 + 5e-5, "relative_loss_difference, uncached, fp32 is 5e-05")]
)
def test_a_loss_that_differs_stops_the_benchmark(some_images: Any, factor: float, message: str | None) -> None:
    kd_step = importlib.import_module("kd_step")
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(3072, 100)) for _ in range(2))

    def loss(batch: Batch) -> torch.Tensor:
        found: torch.Tensor = factor * kd_step.loss_of(student, teacher, batch.image, batch.label)
        return found

    variants = {name: SimpleNamespace(loss=loss) for name in kd_step.LOSS_LIMITS}
    arguments = (some_images, next(iter(some_images.train_dataloader())), student, teacher, variants)
    if message is None:
        assert kd_step.check_sameness(*arguments)["largest_pixel_difference"] < 1e-6
    else:
        with pytest.raises(SystemExit, match=message):
            kd_step.check_sameness(*arguments)


# -- on a GPU ---------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(measuring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device ``cuda`` of a machine without one; what it is asked to do is noted in ``waited``."""
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append("here"))
    return SimpleNamespace(device=measuring.Device("cuda"), waited=waited)


def test_a_device_says_what_is_different_on_it(measuring: ModuleType, gpu: Any) -> None:
    cpu, cuda = measuring.CPU, gpu.device

    assert (cpu.torch, cuda.torch) == (torch.device("cpu"), torch.device("cuda", 0))
    assert (cpu.pins, cuda.pins) == (False, True)
    assert (cpu.file("epoch"), cuda.file("epoch")) == ("epoch.json", "epoch_cuda.json")
    assert cpu.settings() == {}
    assert cuda.settings() == {"tf32_matmul": False, "tf32_convolution": True, "cudnn_benchmark": False}
    cpu.synchronize()
    assert not gpu.waited


def test_a_clock_is_read_when_the_gpu_is_done(measuring: ModuleType, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, queued=0)

    def step() -> None:
        clock.queued += 1  # a GPU's step costs nothing until it is waited for

    def wait() -> None:
        clock.now += 2.0 * clock.queued
        clock.queued = 0

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    assert measuring.steps_per_s(step, 0.0, gpu.device) == 0.5


@pytest.mark.parametrize(
    ("available", "name", "message"), [(False, "cuda", "PyTorch finds none"), (True, "tpu", "neither cpu nor cuda")]
)
def test_a_device_that_is_not_there_is_refused(
    measuring: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    available: bool,
    name: str,
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    with pytest.raises(SystemExit):
        measuring.device_options("").parse_args(["--device", name])
    assert message in capsys.readouterr().err


def test_images_lie_where_a_trainer_would_keep_them(measuring: ModuleType, some_images: Any) -> None:
    measuring.CPU.keep_images(some_images)
    assert next(iter(some_images.train_dataloader())).image.device == torch.device("cpu")

    elsewhere = SimpleNamespace(type="cuda", torch=torch.device("cuda", 0))
    moved: list[torch.device] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
        patch.setattr(type(some_images.train_split), "to", lambda split, device: moved.append(device) or split)
        measuring.Device.keep_images(elsewhere, some_images)
        some_images.train_dataloader()
    assert moved == [torch.device("cuda", 0)]


def test_programs_that_round_differently_are_not_compared(measuring: ModuleType) -> None:
    ours = {"tf32_matmul": False, "tf32_convolution": True, "cudnn_benchmark": False}
    measuring.check_rounding({"kdlab": ours, "plain": ours | {"cudnn_benchmark": True}})
    with pytest.raises(SystemExit, match="round differently"):
        measuring.check_rounding({"kdlab": ours, "plain": ours | {"tf32_matmul": True}})


def test_turns_end_before_the_time_is_up(measuring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=measuring.BEGAN)

    def taken(minutes: float | None) -> list[int]:
        clock.now = measuring.BEGAN
        taken = []
        for turn in measuring.turns_within(3, minutes):
            taken.append(turn)
            clock.now += 60
        return taken

    monkeypatch.setattr(measuring.time, "monotonic", lambda: clock.now)
    assert taken(None) == taken(4.0) == [0, 1, 2, 3]
    assert taken(3.5) == [0, 1, 2]
    assert taken(0.1) == [0, 1]  # one is always measured


def test_a_variant_learns_and_lets_old_batches_go(some_images: Any) -> None:
    kd_step = importlib.import_module("kd_step")
    student = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))
    before = student[1].weight.detach().clone()
    variant = kd_step.Variant(IndependentStudent(student=student), some_images, kd_step.measuring.CPU, False, None)
    batch = next(iter(some_images.train_dataloader()))
    for _ in range(5):
        variant.step(batch)
    assert not torch.equal(student[1].weight, before)
    assert len(variant.watch._seen) <= 2  # on a GPU they are its memory


@pytest.mark.parametrize("name", ["fp32", "tf32", "bf16"])
def test_a_matrix_product_is_timed_on_a_device(as_a_script: None, name: str) -> None:
    kd_step = importlib.import_module("kd_step")
    assert kd_step.matmul_gmacs_per_s(name, kd_step.measuring.CPU, sizes=(8,), in_a_row=3) > 0
    assert not torch.backends.cuda.matmul.allow_tf32


def test_all_programs_are_run_in_the_time_there_is(
    measuring: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_speed = importlib.import_module("gpu_speed")
    (tmp_path / "done.json").write_text(json.dumps({"environment": {"git_commit": "abc", "uncommitted_changes": []}}))
    (tmp_path / "older.json").write_text(json.dumps({"environment": {"git_commit": "ab", "uncommitted_changes": []}}))
    (tmp_path / "older.py").write_text("print('made', *__import__('sys').argv[1:])")
    (tmp_path / "wrong.py").write_text("raise SystemExit('that was wrong')")
    (tmp_path / "slow.py").write_text("print('slow', flush=True); __import__('time').sleep(60)")
    monkeypatch.setattr(measuring, "HERE", tmp_path)
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    monkeypatch.setattr(measuring, "commit", lambda: "abc")
    monkeypatch.setattr(measuring, "BEGAN", time.monotonic())
    monkeypatch.setattr(
        gpu_speed, "PROGRAMS", {"done": [], "wrong": [], "older": ["--turns", "3"], "slow": [], "later": []}
    )
    monkeypatch.setattr(gpu_speed, "PATIENCE_S", 0.2)
    monkeypatch.setattr(gpu_speed, "LEAST_S", 0.5)
    monkeypatch.setattr(measuring, "device_options", lambda text, default: device_options_of_a_gpu(measuring))

    monkeypatch.setattr(sys, "argv", ["gpu_speed.py", "--data_dir", "somewhere", "--minutes", "0.1"])
    assert gpu_speed.main() == 1
    shown = capsys.readouterr().out

    table = shown.split("== what became of them")[1]
    assert re.search(r"done +there already\n", table)
    assert re.search(r"wrong +failed, \d s\n    that was wrong", table)
    assert re.search(r"older +ran, \d s\n", table)
    assert re.search(r"slow +out of time, \d s\n    slow", table)
    assert re.search(r"later +no time left", table)
    assert "made --turns 3 --device cuda --data_dir somewhere" in shown


def test_tables_of_a_gpu_are_written_where_their_results_exist(
    as_a_script: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = importlib.import_module("tables")
    spread = {"median": 2000.0, "min": 1000.0, "max": 3000.0}
    where = {"environment": {"gpu": "Some Board"}, "n": 3}
    rates = {"images_per_s": {"plain": spread, "fast": spread}, "ratios": {"fast / plain": spread}, "utilization": {}}
    of_all = {
        "kd_step_cuda": rates,
        "epoch_cuda": {"images_per_s": {"torchdistill": spread, "kdlab": spread}, "ratios": {"kdlab / torchdistill": spread}},
        "overhead_cuda": {"ResNet20": {"ratio": spread, "fit_images_per_s": spread, "bare_images_per_s": spread}},
        "data_pipeline_cuda": {
            "workers": 8,
            "batch_sizes": {"64": {"kdlab": {"images_per_s": spread}, "torchvision": {"images_per_s": spread}, "ratio": spread}},
        },
        "ensemble_cuda": {
            "cases": [{"members": "VGG", "job": "latency", "batch": 1, "median_ms": {"one_by_one": 2.0}, "fused_ratio": spread}]
        },
    }  # fmt: skip
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    page = (BENCHMARKS.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    assert tables.there(*tables.ON_A_GPU) == ()

    for name, result in of_all.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(where | result))
    found = tables.there(*tables.ON_A_GPU)

    assert {table.__name__ for table in found} == set(of_all)
    written = tables.with_tables(page, found)
    assert written.count("Some Board") == 5
    assert "| kdlab | 2,000 | 2000.0 [1000.0, 3000.0] |" in written
    assert "| VGG, latency | 1 | 2.00 | 2000.00 [1000.00, 3000.00] | |" in written
    assert tables.with_tables(written, found) == written


def device_options_of_a_gpu(measuring: ModuleType) -> Any:
    """The options of `gpu_speed` with a device that is no rehearsal and needs no GPU."""
    parser = measuring.options("")
    device = SimpleNamespace(type="cuda", file=lambda name: f"{name}.json")
    parser.set_defaults(device=device)
    return parser


# -- all of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert f"python benchmarks/{name}" in shown
    assert "--quick" in shown


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_result_says_where_it_was_measured(path: Path) -> None:
    result = json.loads(path.read_text())
    environment = result["environment"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", environment["git_commit"])
    assert environment["command"]
    assert environment.get("cpu") or environment["device"]
    assert environment["python"]
    assert environment.get("torch") or environment["versions"]["torch"]
    assert environment["versions"]["kdlab"]
    assert environment.get("uncommitted_changes", []) == []
    # first_run.json is the result.json of one run
    assert "n" in keys_of(result) or "seed" in result
    assert not paths_in(result)


def test_the_tables_of_the_pages_are_those_of_the_results(as_a_script: None) -> None:
    tables = importlib.import_module("tables")
    for name, shown in tables.TABLES.items():
        page = (BENCHMARKS.parent / name).read_text(encoding="utf-8")
        assert tables.with_tables(page, shown) == page, f"{name} is older than its results: python benchmarks/tables.py"
        for table in shown:
            older = page.replace(table(), "| older |\n")
            assert older != page
            assert tables.with_tables(older, shown) == page


def test_an_absolute_path_would_be_found() -> None:
    assert paths_in({"a": ["python x.py --data_dir /home/me"]}) == ["python x.py --data_dir /home/me"]
    assert paths_in({"a": "--out=/x", "b": "~/data", "c": "C:\\data"}) == ["--out=/x", "~/data", "C:\\data"]
    assert not paths_in({"fast / plain": "images/s", "unit": "1 / s", "file": "kdlab/data"})


def paths_in(value: Any) -> list[str]:
    """All texts that hold an absolute path."""
    if isinstance(value, dict):
        return [path for each in value.items() for part in each for path in paths_in(part)]
    if isinstance(value, (list, tuple)):
        return [path for each in value for path in paths_in(each)]
    return [value] if isinstance(value, str) and ABSOLUTE_PATH.search(value) else []


def keys_of(value: Any) -> set[str]:
    """All names in a result, however deep."""
    if isinstance(value, dict):
        return set(value) | {key for each in value.values() for key in keys_of(each)}
    return {key for each in value for key in keys_of(each)} if isinstance(value, list) else set()


# -- faults -----------------------------------------------------------------------------------------------------

JUNIT = """<testsuites><testsuite>
<testcase name="a"><properties><property name="fault: kill" value="14"/></properties></testcase>
<testcase name="b"><properties><property name="fault: kill" value="3"/><property name="other" value="9"/></properties></testcase>
<testcase name="c"><skipped message="no disk can be mounted here"/></testcase>
</testsuite></testsuites>"""


def test_what_tests_have_survived_is_added_up_by_fault_and_what_was_skipped_is_told(
    as_a_script: None, tmp_path: Path
) -> None:
    faults = importlib.import_module("faults")
    (tmp_path / "junit.xml").write_text(JUNIT)
    assert faults.counts(tmp_path / "junit.xml") == {"kill": 17}
    assert faults.skipped(tmp_path / "junit.xml") == {"c": "no disk can be mounted here"}


def test_the_page_on_reliability_has_the_figures_of_the_result() -> None:
    page = (BENCHMARKS.parent / "docs" / "reliability.md").read_text()
    result = json.loads((BENCHMARKS / "results" / "faults.json").read_text())
    for name, times in result["faults"].items():
        fault, outcome = name.split(": ", 1)
        assert f"| {fault} | {times} | {outcome} | `python -m pytest" in page
    assert result["skipped"] == {}
