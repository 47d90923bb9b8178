"""Several networks side by side, through the command line."""

import csv
import io
import itertools
import json
import sys

import pytest
import torch
from torch import nn

from kdlab.cli import main
from kdlab.models import DigitsConv
from kdlab.verbs.comparison import measure
from kdlab.verbs.comparison_table import notes, rows
from kdlab.verbs.targets import Target

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


def test_energy_is_measured_or_the_reason_is_there(four):
    for network in four["networks"]:
        energy = network["energy"]
        assert energy["energy_mj_per_image"] is not None or energy["reason"]
        assert (energy["energy_mj_per_image"] is None) == any("energy: not measured" in note for note in four["notes"])


def test_a_student_by_hand_has_the_same_figures_as_config_run_and_class(workplace, capsys):
    # 64 x 32 + 32 x 10 multiply-adds, 64 x 32 + 32 + 32 x 10 + 10 parameters of 4 bytes
    targets = ["digits/logit_matching", "runs/digits/logit_matching-seed0", "MNISTPerceptron(image_size=8,dropout=0)",
               "configs/models/digits_student.yaml"]  # fmt: skip
    assert main(["profile", *targets, *FAST, "--data", "Digits", "--format", "csv"]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["network"] for row in found] == targets
    assert {(row["macs"], row["parameters"], row["size_bytes"]) for row in found} == {("2368", "2410", "9640")}


def test_two_profiles_of_one_network_differ_by_less_than_the_printed_spread(capsys):
    # a fifth of a second each is enough for the medians of five rounds of about 0.1 ms
    options = ["--data", "Digits", "--seconds", "0.4", "--batch_size", "16", "--threads", "1", "--accelerator", "cpu"]
    assert main(["profile", "DigitsConv", "DigitsConv", *options, "--format", "csv"]) == 0
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert second["network"] == "DigitsConv #2"
    for batch in ("", "batch16_"):
        p50, spread = f"{batch}latency_ms_p50", f"{batch}latency_ms_spread"
        assert abs(float(first[p50]) - float(second[p50])) < max(float(first[spread]), float(second[spread]))


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
    assert "too low" in shown
    sys.modules.pop("own_fourier")


def test_table_and_markdown_show_every_network_and_variant(capsys):
    arguments = ["profile", "DigitsConv", *FAST, "--data", "Digits", "--variants", "eager", "bf16", "eager"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert main([*arguments, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "| network | image | parameters | MiB | MACs M | MACs counters | ms p50 at 1 | ms p90 at 1 |"
    )
    assert lines[2].startswith("| DigitsConv | 1x8x8 | 613 | ")
    assert lines[3].startswith("| DigitsConv (bf16) | 1x8x8 |  |  |  |  | ")
    assert len(lines[2].split("|")) == len(lines[3].split("|")) == len(lines[0].split("|"))
    for text in (
        "DigitsConv (bf16)",
        "613",
        "ms spread at 4",
        "images/s at 4",
        "mJ/image",
        "Measured on cpu, 1 thread",
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
    small, large = rows(costs, 4)
    assert small["ms p50 at 1"] == small["images/s at 4"] == "n/a"
    assert float(large["ms p50 at 4"]) > 0
    assert small["parameters"] == large["parameters"] == "650"


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
