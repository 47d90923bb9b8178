"""What the benchmarks share: where a number was measured, its spread, and processes that take turns.

A ratio is worth something only if both sides were measured under the same load. So the variants of a benchmark take
turns in one run, each ratio is of one turn, and its median, smallest and largest value are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from kdlab.atomic import write_text

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("kdlab", "torchvision", "lightning", "numpy")


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of the benchmark, with the option that all of them have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short turn, to see that it runs; nothing is written")
    return parser


def environment(command: Sequence[str], code: Iterable[str], packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return what the numbers depend on.

    Args:
        command: ``sys.argv`` of the benchmark.
        code: files and folders of the checkout that are measured; the benchmark itself always is.
        packages: whose versions matter beside torch's.
    """
    script = f"benchmarks/{Path(command[0]).name}"
    changes = _git("status", "--porcelain", "--", *code, script, "benchmarks/measuring.py")
    return {
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average_before": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {name: _version(name) for name in packages},
        "git_commit": _git("rev-parse", "HEAD").strip() or None,
        "uncommitted_changes": changes.splitlines(),
        "command": command_line(script, command[1:]),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit_of(checkout: str) -> str | None:
    """Return the commit of somebody else's checkout; None where it is none."""
    return _git("rev-parse", "HEAD", folder=Path(checkout)).strip() or None


def command_line(script: str, arguments: Iterable[str]) -> str:
    """Return the command with the last part of each path only: other people's folders have other names."""
    return " ".join(["python", script, *(re.sub(r"[^\s=]*/(?=[^\s/]+)", "", each).rstrip("/") for each in arguments)])


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model, or what the platform calls it where there is no such file."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return which of the instructions that make matrix products fast the processor has."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return sorted(set(flags) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Return the variants in the order of a turn, so that none always follows the same load."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def steps_per_s(step: Callable[[], None], seconds: float) -> float:
    """Return how many steps are taken per second, in at least so many seconds, after one that does not count."""
    step()
    taken, began, now = 0, time.perf_counter(), 0.0
    while taken == 0 or now < seconds:
        step()
        taken, now = taken + 1, time.perf_counter() - began
    return taken / now


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the smallest and the largest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(turns: Sequence[Mapping[str, float]], pairs: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, float]]:
    """Return the spread of each ratio, taken turn by turn.

    Args:
        turns: the rate of each variant in each turn.
        pairs: label -> names of the variants above and below the line.
    """
    return {label: spread([turn[above] / turn[below] for turn in turns]) for label, (above, below) in pairs.items()}


def over(*pairs: tuple[str, str]) -> dict[str, tuple[str, str]]:
    """Return `pairs` for `ratios` under their usual labels, "above / below"."""
    return {f"{above} / {below}": (above, below) for above, below in pairs}


def show(title: str, spreads: Mapping[str, Mapping[str, float]]) -> None:
    """Print medians, each with the smallest and the largest value."""
    print(title)
    for name, value in spreads.items():
        median, smallest, largest = (
            f"{value[key]:,.{0 if value[key] >= 100 else 3}f}" for key in ("median", "min", "max")
        )
        print(f"  {name:60s} {median:>10s} [{smallest}, {largest}]")


def write(report: Mapping[str, Any], name: str) -> None:
    """Write a result to ``benchmarks/results``."""
    write_text(RESULTS / name, json.dumps(report, indent=1) + "\n")
    print(f"written to benchmarks/results/{name}")


@torch.no_grad()
def with_statistics(network: nn.Module, image: torch.Tensor) -> nn.Module:
    """Return a network with random weights in eval mode, its batch norms set to the statistics of ``[B, C, H, W]``.

    With those that batch norm starts from (mean 0, variance 1) the logits of a deep network reach thousands.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(image)
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def with_threads(threads: int) -> dict[str, str]:
    """Return the environment of a process whose OpenMP has so many threads."""
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


class Partner:
    """A process of its own that works when it is told to, so that two programs can take turns.

    Args:
        script: file in ``benchmarks`` that speaks through `Turns`.
        told: what the script needs to know; JSON.
        threads: of its OpenMP.
    """

    def __init__(self, script: str, told: Mapping[str, Any], threads: int) -> None:
        self.script = script
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, HERE / script, json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=with_threads(threads),
            text=True,
        )

    def turn(self) -> dict[str, Any]:
        """Let it work, and return what it says at the end.

        Raises:
            RuntimeError: if it has died; with the last lines that it printed.
        """
        answer = ""
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"benchmarks/{self.script} has died:\n" + "".join(self._log.readlines()[-20:]))
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()  # the sign to leave
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


class Turns:
    """The other end of the line, in the partner's process. All that it prints goes to its log."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def wait(self) -> bool:
        """Wait for the next turn; False when there is none any more."""
        return bool(sys.stdin.readline())

    def answer(self, **values: Any) -> None:
        """Say what came out of this turn."""
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


def _git(*command: str, folder: Path | None = None) -> str:
    """Return what git prints in a folder, by default this checkout; nothing where there is no git or no checkout."""
    try:
        return subprocess.run(["git", *command], capture_output=True, text=True, cwd=folder or HERE.parent).stdout
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
