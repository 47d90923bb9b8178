"""How long one inference takes."""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from kdlab.profiling.base import Profiler, require_at_least
from kdlab.profiling.isolation import describe_device, noise_batch, synchronize
from kdlab.profiling.results import Measurement
from kdlab.profiling.timing import Case, distribution, time_cases

Variant = Literal["eager", "bf16", "compiled", "compiled_bf16"]

QUEUED_CALLS = 50  # timed by events on a GPU, without waiting in between


@dataclass(frozen=True)
class BatchLatency:
    """Latency of one batch size of one variant, wall clock, each call waited for.

    Attributes:
        variant: how the network was run.
        engine: ``eager`` or ``compiled`` (torch.compile).
        dtype: of weights and images.
        batch_size: images per call.
        latency_ms_p50: median; p90 and p99 are None where fewer than 10 and 100 calls fit into the time.
        latency_ms_iqr: interquartile range of the calls.
        latency_ms_spread: range of the medians of five rounds plus the interquartile range: how far apart two
            profiles of one network may lie.
        latency_n: calls that were timed.
        throughput_images_per_s: batch size over the mean latency.
        device_ms_p50: median between CUDA events around calls that are queued without waiting; None without CUDA.
        warmup_n: calls before.
        warmup_stable: whether two medians in a row agreed within 5% when the warm-up ended.
    """

    variant: str
    engine: str
    dtype: str
    batch_size: int
    latency_ms_p50: float
    latency_ms_p90: float | None
    latency_ms_p99: float | None
    latency_ms_min: float
    latency_ms_mean: float
    latency_ms_iqr: float
    latency_ms_spread: float
    latency_n: int
    throughput_images_per_s: float
    device_ms_p50: float | None
    warmup_n: int
    warmup_stable: bool


METRICS = tuple(f"latency_ms_{name}" for name in ("p50", "p90", "p99", "min", "mean", "iqr", "spread"))


@dataclass(frozen=True)
class LatencyProfile(Measurement):
    """Latency of a network.

    Attributes:
        runs: one per variant and batch size.
        device: it was measured on.
        threads: of torch on the processor.
        image_shape: (C, H, W).
        not_measured: variant -> why it could not run.
    """

    runs: tuple[BatchLatency, ...]
    device: str
    threads: int
    image_shape: tuple[int, ...]
    not_measured: dict[str, str]

    def metrics(self) -> dict[str, float | None]:
        """Names of eager batch 1 have no prefix: ``latency_ms_p50``, but ``bf16_batch128_latency_ms_p50``."""
        metrics: dict[str, float | None] = {}
        for run in self.runs:
            prefix = "" if run.variant == "eager" else f"{run.variant}_"
            prefix += "" if run.batch_size == 1 else f"batch{run.batch_size}_"
            for name in (*METRICS, "latency_n", "throughput_images_per_s", "device_ms_p50"):
                metrics[prefix + name] = getattr(run, name)
        return metrics


class LatencyProfiler(Profiler):
    """Measure the latency of the student: percentiles, spread and throughput at batch 1 and at a larger batch.

    Each batch size of each variant is warmed up until stable and then timed for `seconds`, in five rounds that take
    turns. Every call is waited for and timed alone, under ``torch.inference_mode``, in the student's own precision.
    Figures belong to one machine, number of threads and engine; all are recorded.

    Args:
        batch_size: of the larger batch; 1 measures batch 1 only.
        seconds: to time each batch size of each variant, plus at most half of it to warm up.
        variants: how to run the network: ``eager``, ``bf16`` (weights and images converted), ``compiled``
            (torch.compile; needs a C++ compiler on a processor), ``compiled_bf16``.

    Raises:
        UsageError: if `batch_size` or `seconds` is too small.
    """

    section = "latency"
    headline = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "throughput_images_per_s")

    def __init__(self, batch_size: int = 128, seconds: float = 1.0, variants: tuple[Variant, ...] = ("eager",)) -> None:
        super().__init__()
        require_at_least("batch_size", batch_size, 1, "images per call; 128 is usual")
        require_at_least("seconds", seconds, 0.01, "the time of one measurement; 1 is usual")
        self.batch_size = batch_size
        self.seconds = seconds
        self.variants = variants

    def measure(self, network: nn.Module, image: Tensor) -> LatencyProfile:
        """Return the latency of every variant and batch size that can run."""
        return self.measure_together([(network, image)])[0]

    @torch.inference_mode()
    def measure_together(self, networks: Sequence[tuple[nn.Module, Tensor]]) -> list[LatencyProfile]:
        """Return the latency of several networks that take turns, so that a busy moment does not hit one alone.

        Args:
            networks: what `measure` gets, for each.
        """
        plans = [self._plan(network, image) for network, image in networks]
        time_cases([planned.case for plan, _ in plans for planned in plan], self.seconds)
        return [
            LatencyProfile(
                runs=tuple(_latency(planned) for planned in plan),
                device=describe_device(image.device),
                threads=torch.get_num_threads(),
                image_shape=tuple(image.shape[1:]),
                not_measured=failed,
            )
            for (plan, failed), (_, image) in zip(plans, networks, strict=True)
        ]

    def _plan(self, network: nn.Module, image: Tensor) -> tuple[list[_Planned], dict[str, str]]:
        """What is to be timed of one network, and the variants that cannot run with their reasons."""
        plan: list[_Planned] = []
        failed: dict[str, str] = {}
        for variant in self.variants:
            try:
                run, dtype = _prepare(network, variant, image.dtype)
                for size in dict.fromkeys((1, self.batch_size)):
                    batch = noise_batch(image, size).to(dtype)
                    case = Case(_call(run, batch))
                    case.call()  # compiles, and finds out whether the variant can run at all
                    plan.append(_Planned(variant, size, run, batch, case))
            except RuntimeError as error:
                if variant == "eager":
                    raise
                failed[variant] = str(error).strip().partition("\n")[0]
                plan = [planned for planned in plan if planned.variant != variant]
        return plan, failed


class _Planned(NamedTuple):
    """One batch size of one variant, ready to be timed."""

    variant: str
    batch_size: int
    network: nn.Module
    batch: Tensor
    case: Case


def _prepare(network: nn.Module, variant: Variant, dtype: torch.dtype) -> tuple[nn.Module, torch.dtype]:
    if variant.endswith("bf16"):
        dtype = torch.bfloat16
        network = copy.deepcopy(network).to(dtype)
    if variant.startswith("compiled"):
        compiled: Any = torch.compile(network, dynamic=False)
        return compiled, dtype
    return network, dtype


def _call(network: nn.Module, batch: Tensor) -> Callable[[], None]:
    def call() -> None:
        network(batch)
        synchronize(batch.device)

    return call


def _latency(planned: _Planned) -> BatchLatency:
    ms, batch = distribution(planned.case.rounds), planned.batch
    return BatchLatency(
        variant=planned.variant,
        engine="compiled" if planned.variant.startswith("compiled") else "eager",
        dtype=str(batch.dtype).removeprefix("torch."),
        batch_size=planned.batch_size,
        **{name: getattr(ms, name.removeprefix("latency_ms_")) for name in METRICS},
        latency_n=ms.n,
        throughput_images_per_s=1e3 * planned.batch_size / ms.mean,
        device_ms_p50=_device_ms(planned.network, batch) if batch.is_cuda else None,
        warmup_n=planned.case.warmup_n + 1,
        warmup_stable=planned.case.stable,
    )


def _device_ms(network: nn.Module, batch: Tensor) -> float:
    """Return the median time on the GPU of calls in a row: what a loaded server sees, without waiting."""
    events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(QUEUED_CALLS + 1)]  # type: ignore[no-untyped-call]
    for event in events[:-1]:
        event.record()
        network(batch)
    events[-1].record()
    torch.cuda.synchronize(batch.device)
    return statistics.median(float(start.elapsed_time(stop)) for start, stop in itertools.pairwise(events))
