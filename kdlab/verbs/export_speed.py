"""How fast an exported file is beside the network that it was made of.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdlab.errors import first_line
from kdlab.profiling.timing import Case, distribution, time_cases
from kdlab.verbs.export_formats import ExportFormat, Run

EAGER = "eager"


@dataclass(frozen=True)
class Latency:
    """Latency of one batch size in one engine, wall clock, on the processor.

    Attributes:
        engine: ``eager`` for the network itself, else what runs the file.
        batch_size: images per call.
        latency_ms_p50: median; p90 and p99 are None where fewer than 10 and 100 calls fit into the time.
        latency_ms_p90: see above.
        latency_ms_p99: see above.
        latency_ms_spread: how far apart two measurements of the same thing may lie.
        latency_n: calls that were timed.
    """

    engine: str
    batch_size: int
    latency_ms_p50: float
    latency_ms_p90: float | None
    latency_ms_p99: float | None
    latency_ms_spread: float
    latency_n: int


def compare_speed(
    network: nn.Module, file_format: ExportFormat, path: Path, images: Tensor, batch_sizes: list[int], seconds: float
) -> tuple[list[Latency], dict[str, str]]:
    """Time the file and the network in turns.

    Args:
        network: in eval mode, without hooks.
        file_format: of the file.
        path: of the file.
        images: ``[B, C, H, W]``, repeated where a batch is larger.
        batch_sizes: to time.
        seconds: for each batch size and engine.

    Returns:
        The latencies, and what was not measured -> why.
    """
    if file_format.engine is None:
        return [], {"latency": "the file is the network in eager mode: there is nothing to compare"}
    found: list[Latency] = []
    undefined: dict[str, str] = {}
    engines: dict[str, Run] = {file_format.engine: file_format.read(path, network), EAGER: network}
    for size in dict.fromkeys(batch_sizes):
        try:
            found += _time(engines, images, size, seconds)
        except Exception as error:  # engines raise what they like, and the file is good whatever its speed
            undefined[f"latency of batch {size}"] = f"{first_line(error)}; give a smaller --batch_size"
    return found, undefined


def in_words(found: list[Latency]) -> list[str]:
    """One line per batch size: the engine beside eager."""
    lines = []
    for timed, eager in zip(found[::2], found[1::2], strict=True):
        lines.append(
            f"batch {timed.batch_size}: {timed.latency_ms_p50:.3f} ms in {timed.engine} "
            f"(spread {timed.latency_ms_spread:.3f}), {eager.latency_ms_p50:.3f} ms eager "
            f"(spread {eager.latency_ms_spread:.3f}), p50 on the processor, {torch.get_num_threads()} thread(s)"
        )
    return lines


@torch.inference_mode()
def _time(engines: dict[str, Run], images: Tensor, size: int, seconds: float) -> list[Latency]:
    batch = images[torch.arange(size) % len(images)]
    cases = {name: Case(lambda answer=answer: answer(batch)) for name, answer in engines.items()}  # type: ignore[misc]
    time_cases(list(cases.values()), seconds)
    timed = {name: distribution(case.rounds) for name, case in cases.items()}
    return [Latency(name, size, d.p50, d.p90, d.p99, d.spread, d.n) for name, d in timed.items()]
