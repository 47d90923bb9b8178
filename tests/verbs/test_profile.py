"""Several networks side by side, through the command line."""

import csv
import gc
import importlib.util
import io
import itertools
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from torch import nn

from kdlab.cli import main
from kdlab.models import DigitsConv
from kdlab.profiling import EnergyProfiler, LatencyProfiler, MACsProfiler, ModelSizeProfiler, NotMeasured, energy
from kdlab.profiling.energy_windows import Stand
from kdlab.profiling.isolation import device_name, isolated
from kdlab.profiling.latency import LatencyProfile
from kdlab.run.costs import cost_table
from kdlab.verbs import comparison
from kdlab.verbs.comparison import Costs, measure
from kdlab.verbs.comparison_table import notes, rows
from kdlab.verbs.targets import Target

spec = importlib.util.spec_from_file_location("simulation", Path(__file__).parents[1] / "profiling" / "simulation.py")
simulation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(simulation)
Board = simulation.Board

FAST = ["--seconds", "0.05", "--batch_size", "4", "--threads", "1", "--accelerator", "cpu"]
VIT = "TimmModel(name=vit_tiny_patch16_224, options={img_size: 32, patch_size: 4})"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """The JSON of a convolutional network with and one without shortcuts, a transformer and an ensemble."""
    out = tmp_path_factory.mktemp("profile") / "four.json"
    targets = ["ResNet20", "VGG11MLPHead", VIT, "digits/sub_student_ensemble"]
    assert main(["profile", *targets, *FAST, "--format", "json", "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_one_command_profiles_a_resnet_a_vgg_a_vit_and_an_ensemble(four):
    found = {network["network"]: network for network in four["networks"]}
    assert list(found) == ["ResNet20", "VGG11MLPHead", VIT, "digits/sub_student_ensemble"]
    # ResNet-20 with 100 classes: the literature's figures; the ensemble: four times DigitsConv's
    assert found["ResNet20"]["size"]["parameters"] == 278_324
    assert found["ResNet20"]["macs"]["macs"] == pytest.approx(40.8e6, rel=1e-3)
    assert found["digits/sub_student_ensemble"]["size"]["parameters"] == 4 * 613
    assert found["digits/sub_student_ensemble"]["image_shape"] == [1, 8, 8]
    assert found[VIT]["size"]["parameters"] == 5_380_132
    for network in found.values():
        assert network["macs"]["macs_agree"]
        assert network["macs"]["uncounted_ops"] == {}
        assert [run["batch_size"] for run in network["latency"]["runs"]] == [1, 4]
        assert network["latency"]["threads"] == 1
        assert all(run["latency_ms_p50"] > 0 for run in network["latency"]["runs"])


@pytest.fixture
def board(monkeypatch):
    """A simulated counter and its clock in place of the machine's; the networks really run."""
    board = Board(idle_watts=40.0, load_watts=60.0, step=0.01)

    def stand(meter, run):
        def run_once_and_count(iterations):
            run(1)
            board.run(iterations)

        return Stand(meter, run_once_and_count, board.clock, board.sleep)

    monkeypatch.setattr(energy, "find_meter", lambda device: board)
    monkeypatch.setattr(energy, "Stand", stand)
    return board


def test_energy_is_in_every_form_where_there_is_a_counter(board, capsys):
    found = {}
    for form in ("json", "csv", "table", "markdown"):
        assert main(["profile", "DigitsConv", *FAST, "--data", "Digits", "--format", form]) == 0
        found[form] = capsys.readouterr().out
    # 100 W for 3 ms are 300 mJ for 4 images, of which 40 W are idling
    result = json.loads(found["json"])
    measured = result["networks"][0]["energy"]
    assert measured["energy_mj_per_image"] == pytest.approx(75.0, rel=0.01)
    assert measured["net_energy_mj_per_image"] == pytest.approx(45.0, rel=0.01)
    assert "reason" not in measured
    assert not any("energy" in note for note in result["notes"])
    (row,) = csv.DictReader(io.StringIO(found["csv"]))
    assert float(row["energy_mj_per_image"]) == pytest.approx(75.0, rel=0.01)
    assert row["energy"] == "measured"
    assert "│ mJ/image" in found["table"]
    lines = [line.split("|") for line in found["markdown"].splitlines()[:3]]
    assert float(lines[2][-2]) == pytest.approx(75.0, rel=0.01)


def test_without_a_counter_the_reason_is_in_every_form(monkeypatch, capsys):
    monkeypatch.setattr(energy, "find_meter", lambda device: NotMeasured("no counter in this box"))
    for form in ("json", "csv", "table", "markdown"):
        assert main(["profile", "DigitsConv", *FAST, "--data", "Digits", "--format", form]) == 0
        shown = capsys.readouterr().out
        assert "no counter in this box" in shown
        if form == "json":
            assert json.loads(shown)["networks"][0]["energy"]["energy_mj_per_image"] is None
        if form == "csv":
            (row,) = csv.DictReader(io.StringIO(shown))
            assert row["energy"] == "no counter in this box"
            assert (row["device"], row["threads"]) == (device_name(CPU), "1")
            assert "energy_mj_per_image" not in row


def test_a_student_by_hand_has_the_same_figures_as_config_run_and_class(workplace, capsys):
    # 64 x 32 + 32 x 10 multiply-adds, 64 x 32 + 32 + 32 x 10 + 10 parameters of 4 bytes
    targets = ["digits/logit_matching", "runs/digits/logit_matching-seed0", "MNISTPerceptron(image_size=8,dropout=0)",
               "configs/models/digits_student.yaml"]  # fmt: skip
    assert main(["profile", *targets, *FAST, "--data", "Digits", "--format", "csv"]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["network"] for row in found] == targets
    assert {(row["macs"], row["parameters"], row["size_bytes"]) for row in found} == {("2368", "2410", "9640")}


def test_more_work_takes_longer(capsys):
    # the second network takes six times as long; a machine that others use may double any time
    networks = ["DigitsConv", "DigitsConv(widths=[64, 128, 256])"]
    options = ["--data", "Digits", "--seconds", "0.4", "--batch_size", "16", "--threads", "1", "--accelerator", "cpu"]
    assert main(["profile", *networks, *options, "--format", "csv"]) == 0
    small, large = csv.DictReader(io.StringIO(capsys.readouterr().out))
    for batch in ("", "batch16_"):
        assert float(small[f"{batch}latency_ms_p50"]) < float(large[f"{batch}latency_ms_p50"])
        assert float(small[f"{batch}latency_ms_spread"]) > 0


def test_a_network_that_is_named_twice_is_profiled_twice(capsys):
    assert main(["profile", "DigitsConv", "DigitsConv", *FAST, "--data", "Digits", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["network"] for row in rows] == ["DigitsConv", "DigitsConv #2"]


def test_the_count_of_thop_is_there_on_request(capsys):
    arguments = ["profile", "VGG11MLPHead", *FAST, "--threads", "1"]
    assert main([*arguments, "--thop_style", "--format", "markdown"]) == 0
    head, _, row, *_ = (line.split("|") for line in capsys.readouterr().out.splitlines())
    cells = dict(zip(map(str.strip, head), map(str.strip, row), strict=True))
    # the seed study's 19705.10 M at batch 128
    assert (cells["MACs M"], cells["MACs M thop style"]) == ("153.340", "153.946")
    assert main([*arguments, "--format", "csv"]) == 0
    assert "thop" not in capsys.readouterr().out


def test_an_operator_that_nobody_counts_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_fourier.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Fourier(nn.Module):\n"
        "    def __init__(self, num_classes: int = 10) -> None:\n"
        "        super().__init__()\n        self.fc = nn.Linear(64, num_classes)\n\n"
        "    def forward(self, image):\n        return self.fc(torch.fft.fft2(image).real.flatten(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["profile", "own_fourier.Fourier", *FAST, "--data", "Digits"]) == 0
    shown = capsys.readouterr().out
    assert (
        "own_fourier.Fourier: nobody counts aten::fft_fft2 (x1), which may multiply and add; MACs is too low." in shown
    )
    assert "│ MACs counters" in shown
    assert "\x1b" not in shown
    assert "too low" in shown
    sys.modules.pop("own_fourier")


def test_table_and_markdown_show_every_network_and_variant(capsys):
    arguments = ["profile", "DigitsConv", *FAST, "--data", "Digits", "--variants", "eager", "bf16", "eager"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert main([*arguments, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "| network | image | parameters | size MiB | MACs M | MACs counters | ms p50 at 1 | ms p90 at 1 |"
    )
    assert lines[2].startswith("| DigitsConv | 1x8x8 | 613 | ")
    assert lines[3].startswith("| DigitsConv (bf16) |  |  |  |  |  | ")
    assert len(lines[2].split("|")) == len(lines[3].split("|")) == len(lines[0].split("|"))
    for text in (
        "DigitsConv (bf16)",
        "613",
        "ms spread at 4",
        "images/s at 4",
        "mJ/image",
        f"Measured on {device_name(CPU)}, 1 thread",
    ):
        assert text in table
    assert all(len(line) <= 120 for line in table.splitlines() if line.startswith("│"))


def test_the_number_of_threads_is_as_before(capsys):
    torch.set_num_threads(2)
    assert main(["profile", "DigitsConv", *FAST, "--data", "Digits", "--format", "json"]) == 0
    assert torch.get_num_threads() == 2
    assert json.loads(capsys.readouterr().out)["networks"][0]["latency"]["threads"] == 1


class Recording(nn.Module):
    """Appends its name to `seen`, which copies share, for each call."""

    def __init__(self, name, seen, largest_batch=100):
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.__dict__.update(name=name, seen=seen, largest_batch=largest_batch)

    def __deepcopy__(self, memo):
        return Recording(self.name, self.seen, self.largest_batch)

    def forward(self, image):
        if len(image) > self.largest_batch:
            raise RuntimeError("out of memory")
        self.seen.append(self.name)
        return self.fc(image.flatten(1))


def targets_of(*networks):
    return [Target(network.name, network, (1, 8, 8)) for network in networks]


def test_networks_take_turns_while_they_are_timed():
    seen = []
    measure(targets_of(Recording("a", seen), Recording("b", seen)), CPU, batch_size=2, seconds=0.05)
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert changes >= 2 * 5  # five rounds, in each of which both have their turn


def test_a_network_that_fails_at_the_larger_batch_is_not_measured_and_the_others_are():
    costs = measure(targets_of(Recording("small", [], 3), Recording("large", [])), CPU, batch_size=4, seconds=0.02)
    assert "small: latency: not measured (RuntimeError: out of memory)" in notes(costs, CPU)
    small, large = rows(costs)
    assert small["ms p50 at 1"] == small["images/s at 4"] == "n/a"
    assert float(large["ms p50 at 4"]) > 0
    assert small["parameters"] == large["parameters"] == "650"


class Remembered(Recording):
    """Notes how many copies live while one of them runs."""

    copies: ClassVar = weakref.WeakSet()
    living: ClassVar = []  # (batch, copies) of each call

    def __deepcopy__(self, memo):
        copied = Remembered(self.name, self.seen, self.largest_batch)
        self.copies.add(copied)
        return copied

    def forward(self, image):
        self.living.append((len(image), len(self.copies)))
        return super().forward(image)


def test_after_a_failure_together_each_network_is_alone_on_the_device(monkeypatch, caplog):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(Remembered.copies)))
    networks = [Remembered("a", []), Remembered("b", [], largest_batch=3), Remembered("c", [])]
    all_costs = [
        Costs(target, MACsProfiler(), ModelSizeProfiler(), LatencyProfiler(4, 0.02), EnergyProfiler())
        for target in targets_of(*networks)
    ]
    monkeypatch.setattr(comparison, "isolated", lambda network, device: isolated(network))  # there is no GPU
    for profiler in (costs.latency for costs in all_costs):
        monkeypatch.setattr(
            profiler,
            "profile",
            lambda network, shape, device, own=profiler: LatencyProfiler.profile(own, network, shape),
        )
    gc.disable()  # reference counts alone must do
    try:
        comparison._time(all_costs, torch.device("cuda"))
    finally:
        gc.enable()
    together = max(copies for _, copies in Remembered.living)
    alone = {copies for batch, copies in Remembered.living[-5:]}
    assert (together, alone, emptied) == (3, {1}, [0])
    assert isinstance(all_costs[1].latency.result, NotMeasured)
    assert isinstance(all_costs[2].latency.result, LatencyProfile)
    assert "timed one after the other, because together that failed: out of memory" in caplog.text


def test_networks_stay_where_they_are_and_only_copies_go_to_the_device():
    networks = [DigitsConv(), DigitsConv()]
    targets = [Target(str(n), network, (1, 8, 8)) for n, network in enumerate(networks)]
    measure(targets, torch.device("meta"), batch_size=2, seconds=0.02)
    assert {tensor.device.type for network in networks for tensor in network.state_dict().values()} == {"cpu"}


def test_profiling_leaves_the_network_as_it_was():
    network = DigitsConv().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure([Target("a", network, (1, 8, 8))], CPU, batch_size=2, seconds=0.02)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_line(the_error):
    assert main(["profile", "ResNet20", "--accelerator", "gpu"]) == 2
    assert "accelerator is gpu, but torch finds no CUDA device here; set --accelerator cpu or auto" in the_error()


def test_a_target_that_is_not_there_is_one_line(the_error, tmp_path):
    out = tmp_path / "out.json"
    assert main(["profile", "DigitsConv", "ResNet21", "--out", str(out)]) == 2
    assert "ResNet21 is no run's folder, config, model file or network; did you mean ResNet" in the_error()
    assert not out.exists()


def test_a_file_has_no_colours_even_where_the_terminal_has(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as at a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    out = tmp_path / "new" / "table.txt"
    assert main(["profile", "DigitsConv", *FAST, "--data", "Digits", "--out", str(out)]) == 0
    assert "\x1b" not in out.read_text()
    assert "│ parameters" in out.read_text()
    assert main(["profile", "DigitsConv", *FAST, "--data", "Digits"]) == 0
    assert "\x1b[1m" in capsys.readouterr().out  # at the screen it has


def test_the_ending_of_the_file_says_what_it_holds(tmp_path, capsys):
    out = tmp_path / "new" / "table.json"
    assert main(["profile", "DigitsConv", *FAST, "--data", "Digits", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"written to {out}\n"
    assert len(json.loads(out.read_text())["networks"]) == 1


def test_a_file_that_cannot_be_written_is_found_before_anything_is_measured(monkeypatch, the_error, tmp_path):
    monkeypatch.setattr("kdlab.verbs.targets.find_target", lambda *_: pytest.fail("a network was built"))
    assert main(["profile", "DigitsConv", "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path} is a folder; name a file in it, for example {tmp_path}/profile.txt" in the_error()
    (tmp_path / "file").touch()
    assert main(["profile", "DigitsConv", "--out", str(tmp_path / "file" / "a.json")]) == 2
    assert f"cannot be written: {tmp_path}/file is no folder; choose another file" in the_error()

    def refuse(dir):
        raise PermissionError

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["profile", "DigitsConv", "--out", str(tmp_path / "a" / "b.json")]) == 2
    assert f"cannot be written: {tmp_path} may not be written to; choose another file" in the_error()


def test_a_wrong_option_is_answered_without_importing_what_measures():
    code = (
        "import sys\nfrom kdlab.cli import main\nassert main(['profile', 'X', '--seconds', '-1']) == 2\n"
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (
        done.stderr.strip() == "kdlab: error: --seconds: -1 is no number above 0; see: python -m kdlab profile --help"
    )


# -- the table at a run's end -----------------------------------------------------------------------------------


def printed(table):
    console = Console(width=140, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def result_of(profile):
    return {"student": {"network": "DigitsConv"}, "environment": {"device": "this machine"}, "profile": profile}


def test_a_run_ends_with_the_cells_and_notes_of_this_table():
    costs = measure(targets_of(Recording("small", [], 3)), CPU, batch_size=4, seconds=0.02)
    profile = costs[0].profile()
    profile["macs"] |= {"uncounted_ops": {"aten::cdist": 1}, "macs_doubts": ["nobody counts aten::cdist (x1)"]}
    profile["energy"] = {"energy_mj_per_image": None, "reason": "[nvml] no permission"}
    shown = printed(cost_table(result_of(profile)))
    assert "What DigitsConv costs on this machine" in shown
    assert "650" in shown  # parameters
    for note in (
        "latency: not measured (RuntimeError: out of memory)", "nobody counts aten::cdist (x1).",
        "energy: not measured ([nvml] no permission)",
    ):  # fmt: skip
        assert note in shown


def test_a_run_ends_with_the_times_of_batch_one_and_the_speed_of_the_larger():
    costs = measure(targets_of(Recording("a", [])), CPU, batch_size=4, seconds=0.02, variants=("eager", "bf16"))
    table = cost_table(result_of(costs[0].profile()))
    assert [column.header for column in table.columns] == [
        "network", "parameters", "size MiB", "MACs M", "ms p50 at 1", "ms p99 at 1", "images/s at 4", "mJ/image",
    ]  # fmt: skip
    assert table.row_count == 2
    assert "DigitsConv (bf16)" in printed(table)
    assert cost_table({"student": {}}) is None
