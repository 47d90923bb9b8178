"""How long one inference takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlab.profiling.base import Profiler, require_at_least
from kdlab.profiling.isolation import describe_device, noise_batch, synchronize
from kdlab.profiling.queued import time_queued
from kdlab.profiling.results import Measurement, NotMeasured
from kdlab.profiling.sharing import shared_device
from kdlab.profiling.timing import FEWEST_SAMPLES, Case, Distribution, distribution, time_cases
from kdlab.profiling.variants import Variant, prepare, surroundings

QUEUED_CALLS = 100  # on a GPU, without waiting in between; fewer where they would take longer than the timing itself


@dataclass(frozen=True)
class BatchLatency:
    """Latency of one batch size of one variant.

    Attributes:
        variant: how the network was run.
        engine: ``eager`` or ``compiled`` (torch.compile).
        dtype: of weights and images.
        autocast: type to which autocast turned what it may; None without autocast.
        batch_size: images per call.
        wall: by the clock, each call waited for.
        queued: on a GPU, time from one CUDA event to the next around calls that are queued without waiting: what a
            loaded server sees. Where a call takes longer to start than to run, it is the time to start it. None
            without CUDA.
        warmup_n: calls before.
        warmup_stable: whether two medians in a row agreed within 5% when the warm-up ended.
    """

    variant: str
    engine: str
    dtype: str
    autocast: str | None
    batch_size: int
    wall: Distribution
    queued: Distribution | None
    warmup_n: int
    warmup_stable: bool

    @property
    def throughput_images_per_s(self) -> float:
        """Batch size over the mean latency."""
        return 1e3 * self.batch_size / self.wall.mean

    def figures(self) -> dict[str, float | None]:
        """Return ``latency_ms_p50`` to ``latency_n``, throughput, and on a GPU ``queued_ms_p50`` to ``p99``.

        A percentile is None where too few calls fit into the time: p90 needs 10, p99 needs 100.
        """
        found: dict[str, float | None] = {f"latency_ms_{name}": value for name, value in asdict(self.wall).items()}
        found["latency_n"] = found.pop("latency_ms_n")
        found["throughput_images_per_s"] = self.throughput_images_per_s
        for name in ("p50", "p90", "p99"):
            found[f"queued_ms_{name}"] = None if self.queued is None else asdict(self.queued)[name]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return how it was run and all figures, as JSON values."""
        how = {name: value for name, value in vars(self).items() if name not in ("wall", "queued")}
        return how | self.figures()


@dataclass(frozen=True)
class LatencyProfile(Measurement):
    """Latency of a network.

    Attributes:
        runs: one per variant and batch size.
        device: it was measured on.
        threads: of torch on the processor.
        image_shape: (C, H, W).
        tf32: kinds of operators, ``matmul`` and ``conv``, that a GPU may run on float32 numbers rounded to TF32.
        cudnn_benchmark: whether cuDNN tried its algorithms.
        deterministic: whether only deterministic algorithms were allowed.
        not_measured: variant -> why it could not run.
    """

    runs: tuple[BatchLatency, ...]
    device: str
    threads: int
    image_shape: tuple[int, ...]
    tf32: tuple[str, ...]
    cudnn_benchmark: bool
    deterministic: bool
    not_measured: dict[str, str]

    def metrics(self) -> dict[str, float | None]:
        """Names of eager batch 1 have no prefix: ``latency_ms_p50``, but ``bf16_batch128_latency_ms_p50``."""
        metrics: dict[str, float | None] = {}
        for run in self.runs:
            prefix = "" if run.variant == "eager" else f"{run.variant}_"
            prefix += "" if run.batch_size == 1 else f"batch{run.batch_size}_"
            metrics |= {prefix + name: value for name, value in run.figures().items()}
        return metrics

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values, each run flat."""
        return {**vars(self), "runs": [run.as_dict() for run in self.runs]}


class LatencyProfiler(Profiler):
    """Measure the latency of the student: percentiles, spread and throughput at batch 1 and at a larger batch.

    Each batch size of each variant is warmed up until stable and then timed for `seconds`, in five rounds that take
    turns. Every call is waited for and timed alone, under ``torch.inference_mode``. Weights are as they are stored,
    which is float32 after training in mixed precision too; autocast is off but for its own variant. Figures belong to
    one machine, number of threads, engine and set of switches (TF32, cuDNN benchmark, determinism); all are recorded.

    Args:
        batch_size: of the larger batch; 1 measures batch 1 only.
        seconds: to time each batch size of each variant, plus at most half of it to warm up.
        variants: how to run the network: ``eager``, ``autocast_bf16`` (as a Trainer with precision bf16-mixed runs
            it), ``bf16`` (weights and images converted), ``compiled`` (torch.compile; needs a C++ compiler on a
            processor), ``compiled_bf16``.

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

    def measure(self, network: nn.Module, image: Tensor) -> LatencyProfile | NotMeasured:
        """Return the latency of every variant and batch size that can run; none on a GPU that other runs use too."""
        shared = shared_device() if image.is_cuda else None
        return shared or self.measure_together([(network, image)])[0]

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
                runs=tuple(_latency(planned, self.seconds) for planned in plan),
                device=describe_device(image.device),
                threads=torch.get_num_threads(),
                image_shape=tuple(image.shape[1:]),
                tf32=tuple(kind for kind, backend in _MAY_ROUND.items() if backend.fp32_precision == "tf32"),
                cudnn_benchmark=torch.backends.cudnn.benchmark,
                deterministic=torch.are_deterministic_algorithms_enabled(),
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
                run, dtype = prepare(network, variant, image.dtype)
                for size in dict.fromkeys((1, self.batch_size)):
                    batch = noise_batch(image, size).to(dtype)
                    context = surroundings(variant, batch.device)
                    case = Case(_call(run, batch, context))
                    case.call()  # compiles, and finds out whether the variant can run at all
                    plan.append(_Planned(variant, size, run, batch, context, case))
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
    context: AbstractContextManager[object]
    case: Case


_MAY_ROUND: Mapping[str, Any] = {
    "matmul": torch.backends.cuda.matmul,
    "conv": torch.backends.cudnn.conv,  # type: ignore[attr-defined]
}


def _call(network: nn.Module, batch: Tensor, context: AbstractContextManager[object]) -> Callable[[], None]:
    def call() -> None:
        with context:
            network(batch)
        synchronize(batch.device)

    return call


def _latency(planned: _Planned, seconds: float) -> BatchLatency:
    wall, batch = distribution(planned.case.rounds), planned.batch
    calls = min(QUEUED_CALLS, max(FEWEST_SAMPLES, int(1e3 * seconds / wall.mean)))
    return BatchLatency(
        variant=planned.variant,
        engine="compiled" if planned.variant.startswith("compiled") else "eager",
        dtype=str(batch.dtype).removeprefix("torch."),
        autocast="bfloat16" if planned.variant == "autocast_bf16" else None,
        batch_size=planned.batch_size,
        wall=wall,
        queued=time_queued(planned.network, batch, calls, planned.context) if batch.is_cuda else None,
        warmup_n=planned.case.warmup_n + 1,
        warmup_stable=planned.case.stable,
    )
