"""Latency of real networks: what is reported, not how fast this machine is."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.models import DigitsConv
from kdlab.profiling import LatencyProfiler, NotMeasured, latency
from kdlab.profiling.isolation import describe_device
from kdlab.profiling.queued import time_queued
from kdlab.profiling.timing import Case, distribution


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
        assert sum(call[0][0] == run.batch_size for call in seen) == run.warmup_n + run.wall.n


def test_figures_are_in_order_and_throughput_is_images_over_mean_time():
    _, result = profile()
    for run in result.runs:
        wall, figures = run.wall, run.figures()
        assert 0 < wall.min <= wall.p50
        assert wall.p90 is None or wall.p90 >= wall.p50
        assert wall.spread >= wall.iqr >= 0
        assert (figures["latency_ms_p50"], figures["latency_n"]) == (wall.p50, wall.n)
        assert figures["throughput_images_per_s"] == pytest.approx(run.batch_size / (wall.mean / 1e3))
        assert run.queued is None  # no CUDA events on a processor
        assert figures["queued_ms_p50"] is None
    assert result.threads == torch.get_num_threads()
    assert result.device == describe_device(torch.device("cpu"))
    assert result.image_shape == (1, 8, 8)


def test_metric_keys_name_variant_batch_and_unit(monkeypatch):
    monkeypatch.setattr("kdlab.profiling.timing.SAMPLES_FOR_P99", 3)  # on a busy machine too
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


def test_autocast_keeps_the_weights_and_multiplies_in_bf16():
    kinds = []

    class Noting(nn.Linear):
        def forward(self, image):
            logits = super().forward(image.flatten(1))
            kinds.append((self.weight.dtype, image.dtype, logits.dtype))
            return logits

    _, result = profile(Noting(64, 10), variants=("autocast_bf16",))
    assert set(kinds) == {(torch.float32, torch.float32, torch.bfloat16)}
    assert [(run.variant, run.dtype, run.autocast) for run in result.runs] == [
        ("autocast_bf16", "float32", "bfloat16")
    ] * 2
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture
def switches():
    """The switches that a figure depends on, put back afterwards."""
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    conv = torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, conv
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("switches")
def test_the_switches_that_a_figure_depends_on_are_recorded():
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False
    _, plain = profile()
    assert (plain.tf32, plain.cudnn_benchmark, plain.deterministic) == ((), False, False)
    assert {run.autocast for run in plain.runs} == {None}
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(True)
    profiler, fast = profile()
    assert (fast.tf32, fast.cudnn_benchmark, fast.deterministic) == (("matmul", "conv"), True, True)
    assert profiler.as_dict()["tf32"] == ("matmul", "conv")


def test_the_runs_are_flat_in_the_result():
    profiler, result = profile()
    first = profiler.as_dict()["runs"][0]
    assert (first["variant"], first["batch_size"], first["latency_ms_p50"]) == ("eager", 1, result.runs[0].wall.p50)
    assert not {"wall", "queued"} & set(first)


class Stream:
    """A GPU that works off 1, 2, 3 ... ms long calls in order, and the events that its clock is read by."""

    def __init__(self):
        self.now_ms, self.calls, self.current, self.seen = 0.0, 0, None, []

    def event(self, enable_timing):
        assert enable_timing
        stream = self

        class Event:
            def record(self):
                stream.seen.append(stream.current)
                self.at = stream.now_ms

            def elapsed_time(self, later):
                return later.at - self.at

        return Event()

    @contextmanager
    def device(self, device):
        self.current = device
        yield
        self.current = None

    def network(self, batch):
        self.calls += 1
        self.now_ms += self.calls


def test_queued_calls_are_timed_by_events_on_the_device_of_the_batch(monkeypatch):
    stream, waited = Stream(), []
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(torch.cuda, "device", stream.device)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    batch = torch.zeros(2, 1, 8, 8)
    queued = time_queued(stream.network, batch, 100, nullcontext())
    # quantile q of 1 ... 100 is 1 + 99 q
    assert (queued.p50, queued.p90, queued.p99) == pytest.approx((50.5, 90.1, 99.01))
    assert (queued.n, stream.calls) == (100, 100)
    assert stream.seen == [batch.device] * 101  # not the stream of whatever device is current
    assert waited == [batch.device]  # once, at the end


def test_queued_calls_are_reported_beside_the_wall_clock(monkeypatch):
    asked = []

    def queued(network, batch, calls, context):
        asked.append(calls)
        return distribution([[0.001] * calls])

    wall = Case(lambda: None, rounds=[[0.004] * 5])
    image = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    monkeypatch.setattr(latency, "time_queued", queued)
    for seconds in (1.0, 0.1, 0.001):
        run = latency._latency(latency._Planned("eager", 1, None, image, nullcontext(), wall), seconds)
    assert asked == [100, 25, 3]  # not longer than the timing itself took
    figures = run.figures()
    assert (figures["latency_ms_p50"], figures["queued_ms_p50"], figures["queued_ms_p99"]) == (4.0, 1.0, None)


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
