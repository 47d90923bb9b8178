"""What only a GPU can show: every method trains there, no step waits for the device, costs are read from its counters.

They run on the digits, which need no download: ``python -m pytest -m gpu tests/gpu``. Without a GPU all are skipped.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from kdlab.cli import main
from kdlab.run.graphed_steps import CUDACapture

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

METHODS = (
    "independent", "logit_matching", "logit_standardization", "decoupled_kd", "dist", "multi_level_kd",
    "hint_transfer", "fitnet", "attention_transfer", "similarity_preserving", "relational_kd", "probabilistic_kt",
    "mutual_learning", "teacher_ensemble", "ema_teacher", "cached_teacher", "function_matching",
    "sub_student_ensemble", "hint_ensemble",
)  # fmt: skip
OPTIONS = {"fitnet": ["--model.hint_epochs", "1"]}  # the second epoch is stage two's
SETTLED = 20  # steps: by then buffers are allocated and kernels are chosen


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the teachers that the configs of the digits name, trained on the GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["kdlab"])
        for teacher in ("digits/teacher", "digits/teacher_seed1"):
            assert main(["fit", "--config", teacher, "--config", "run/gpu", "--profile", "false"]) == 0
        yield folder


def fit(config: str, *options: str) -> dict[str, Any]:
    """Two epochs of a config on the GPU; the result."""
    arguments = ["fit", "--config", f"digits/{config}", "--config", "run/gpu", "--name", "run",
                 "--trainer.max_epochs", "2", *OPTIONS.get(config, []), *options]  # fmt: skip
    if "--runs_dir" not in options:
        arguments += ["--runs_dir", f"runs-{config}"]
    assert main(arguments) == 0
    runs = sorted(
        Path(arguments[arguments.index("--runs_dir") + 1], "digits").iterdir(), key=lambda run: run.stat().st_mtime
    )
    found: dict[str, Any] = json.loads((runs[-1] / "result.json").read_text())
    return found


@pytest.mark.parametrize("config", METHODS)
def test_a_method_trains_in_bfloat16(config: str) -> None:
    found = fit(config, "--profile", "false")
    assert found["precision"] == "bf16-mixed"
    assert found["student"]["test"]["accuracy"] > 0.15  # ten classes, two epochs


@pytest.mark.parametrize("config", ["independent", "logit_matching", "hint_transfer", "cached_teacher"])
def test_compiled_networks_train_to_the_same_student_but_for_rounding(config: str) -> None:
    plain = fit(config, "--profile", "false", "--runs_dir", "runs-plain")
    compiled = fit(config, "--config", "run/compiled", "--profile", "false", "--runs_dir", "runs-compiled")
    nll = [found["student"]["test"]["nll"] for found in (plain, compiled)]
    assert nll[0] == pytest.approx(nll[1], rel=0.1)


def test_cuda_graphs_train(tmp_path: Path) -> None:
    graphs = ["--config", "run/compiled", "--trainer.callbacks.mode", "reduce-overhead"]
    assert fit("logit_matching", *graphs, "--profile", "false")["student"]["test"]["accuracy"] > 0.15


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many graphs were captured, and how often one was started."""
    counts = {"captured": 0, "replayed": 0}
    capture = CUDACapture.capture

    def counted(self: CUDACapture, job: Any) -> Any:
        replay, result = capture(self, job)
        counts["captured"] += 1

        def counted_replay() -> None:
            counts["replayed"] += 1
            replay()

        return counted_replay, result

    monkeypatch.setattr(CUDACapture, "capture", counted)
    return counts


@pytest.mark.parametrize("config", METHODS)
def test_a_step_as_one_graph_trains_to_the_same_student_but_for_rounding(config: str, started: dict[str, int]) -> None:
    exact = ["--profile", "false", "--trainer.precision", "32-true", "--runs_dir"]
    if config == "cached_teacher":  # the answers that both find
        fit(config, *exact, "runs-asking")
    plain = fit(config, *exact, "runs-usual")
    assert started["captured"] == 0
    graphed = fit(config, *exact, "runs-graphed", "--config", "run/cuda_graphs")
    assert started["captured"] == 2  # one in each epoch
    assert started["replayed"] > 20
    assert graphed["student"]["test"]["nll"] == pytest.approx(plain["student"]["test"]["nll"], rel=0.05)
    assert graphed.get("teacher", {}).get("images_answered") == plain.get("teacher", {}).get("images_answered")


def test_graphs_of_compiled_networks_in_bfloat16_train() -> None:
    overlays = ["--config", "run/compiled", "--config", "run/cuda_graphs"]
    assert fit("logit_matching", *overlays, "--profile", "false")["student"]["test"]["accuracy"] > 0.15


def test_float32_on_the_gpu_is_float32_on_the_cpu_but_for_rounding() -> None:
    exact = ["--trainer.precision", "32-true", "--profile", "false", "--runs_dir"]
    on_gpu = fit("logit_matching", *exact, "runs-gpu")
    on_cpu = fit("logit_matching", *exact, "runs-cpu", "--trainer.accelerator", "cpu")
    assert on_gpu["student"]["test"]["nll"] == pytest.approx(on_cpu["student"]["test"]["nll"], rel=0.02)


def test_a_second_run_finds_every_answer_remembered() -> None:
    counts = [
        fit("cached_teacher", "--profile", "false", "--runs_dir", f"runs-cached{turn}")["teacher"] for turn in (0, 1)
    ]
    assert counts[1]["images_answered"] > 0
    assert counts[1]["images_computed"] == 0


def test_costs_are_read_from_the_gpu() -> None:
    profile = fit("logit_matching", "--profile", "true", "--runs_dir", "runs-profiled")["profile"]
    assert torch.cuda.get_device_name() in profile["latency"]["device"]
    assert all(run["queued_ms_p50"] > 0 for run in profile["latency"]["runs"])  # by CUDA events
    assert profile["energy"]["energy_mj_per_image"] > 0


class Watched(Callback):
    """Let PyTorch warn of each wait for the device in settled steps."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Listen from a settled step on."""
        if batch_idx == SETTLED:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Listen no more: the means of an epoch are read."""
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("config", ["independent", "logit_matching", "sub_student_ensemble"])
def test_no_step_waits_for_the_device(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdlab.run.fast.Watched", Watched, raising=False)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        fit(
            config,
            "--trainer.callbacks+=kdlab.run.fast.Watched",
            "--trainer.log_every_n_steps",
            "0",
            "--profile",
            "false",
        )
    waits = [str(warning.message) for warning in heard if "synchroniz" in str(warning.message)]
    assert not waits
