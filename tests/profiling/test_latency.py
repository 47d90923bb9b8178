"""Latency of real networks: what is reported, not how fast this machine is."""

import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.models import DigitsConv
from kdlab.profiling import LatencyProfiler, NotMeasured


def profile(network=None, **arguments):
    profiler = LatencyProfiler(**{"batch_size": 4, "seconds": 0.02, **arguments})
    return profiler, profiler.profile(network or DigitsConv(), (1, 8, 8))


class Recording(nn.Module):
    """Remembers how it was called; `seen` is shared by copies."""

    def __init__(self, seen):
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.__dict__["seen"] = seen

    def __deepcopy__(self, memo):
        copied = Recording(self.seen)
        copied.load_state_dict(self.state_dict())
        return copied

    def forward(self, image):
        self.seen.append((tuple(image.shape), image.dtype, torch.is_inference_mode_enabled(), self.training))
        return self.fc(image.flatten(1))


def test_batch_one_and_a_larger_batch_are_timed_under_inference_mode():
    seen = []
    _, result = profile(Recording(seen))
    assert {call[0] for call in seen} == {(1, 1, 8, 8), (4, 1, 8, 8)}
    assert {call[1:] for call in seen} == {(torch.float32, True, False)}
    assert [(run.variant, run.batch_size, run.engine, run.dtype) for run in result.runs] == [
        ("eager", 1, "eager", "float32"),
        ("eager", 4, "eager", "float32"),
    ]
    for run in result.runs:
        assert sum(call[0][0] == run.batch_size for call in seen) == run.warmup_n + run.latency_n


def test_figures_are_in_order_and_throughput_is_images_over_mean_time():
    _, result = profile()
    for run in result.runs:
        assert 0 < run.latency_ms_min <= run.latency_ms_p50
        assert run.latency_ms_p90 is None or run.latency_ms_p90 >= run.latency_ms_p50
        assert run.latency_ms_spread >= run.latency_ms_iqr >= 0
        assert run.throughput_images_per_s == pytest.approx(run.batch_size / (run.latency_ms_mean / 1e3))
        assert run.device_ms_p50 is None  # no CUDA events on a processor
    assert result.threads == torch.get_num_threads()
    assert result.device.startswith("cpu")
    assert result.image_shape == (1, 8, 8)


def test_metric_keys_name_variant_batch_and_unit():
    profiler, _ = profile(variants=("eager", "bf16"), seconds=0.2)
    keys = set(profiler.as_metrics())
    one = {"latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "latency_ms_min", "latency_ms_mean", "latency_ms_iqr",
           "latency_ms_spread", "latency_n", "throughput_images_per_s"}  # fmt: skip
    assert keys == {
        f"profile/{variant}{batch}{name}" for variant in ("", "bf16_") for batch in ("", "batch4_") for name in one
    }


def test_batch_size_one_is_measured_once():
    _, result = profile(batch_size=1)
    assert [run.batch_size for run in result.runs] == [1]


def test_bf16_converts_weights_and_images_of_a_copy():
    seen, network = [], None
    network = Recording(seen)
    _, result = profile(network, variants=("bf16", "eager"))
    assert {call[1] for call in seen} == {torch.bfloat16, torch.float32}
    assert [run.dtype for run in result.runs] == ["bfloat16", "bfloat16", "float32", "float32"]
    assert network.fc.weight.dtype == torch.float32


def test_compiled_runs_through_torch_compile_for_fixed_shapes(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: asked.append(options) or network)
    _, result = profile(variants=("compiled", "compiled_bf16"))
    assert asked == [{"dynamic": False}] * 2
    assert [(run.engine, run.dtype) for run in result.runs] == [("compiled", "float32")] * 2 + [
        ("compiled", "bfloat16")
    ] * 2


def test_a_variant_that_cannot_run_is_named_with_its_reason_and_the_others_are_measured(monkeypatch):
    class Broken(nn.Module):
        def forward(self, image):
            raise RuntimeError("no C++ compiler\nand a long tail")

    monkeypatch.setattr(torch, "compile", lambda network, **options: Broken())
    profiler, result = profile(variants=("eager", "compiled"))
    assert result.not_measured == {"compiled": "no C++ compiler"}
    assert {run.variant for run in result.runs} == {"eager"}
    assert not any("compiled" in key for key in profiler.as_metrics())


def test_a_network_that_cannot_read_the_image_is_not_measured():
    _, result = profile(nn.Linear(5, 5))
    assert isinstance(result, NotMeasured)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, but it must be at least 1: images per call; 128 is usual"),
        ({"seconds": 0.0}, "seconds is 0, but it must be at least 0.01: the time of one measurement; 1 is usual"),
        (
            {"seconds": float("nan")},
            "seconds is nan, but it must be at least 0.01: the time of one measurement; 1 is usual",
        ),
    ],
)
def test_arguments_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(UsageError) as caught:
        LatencyProfiler(**arguments)
    assert str(caught.value) == message
