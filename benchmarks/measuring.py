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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import nn

import kdlab
from kdlab.atomic import write_text

if TYPE_CHECKING:
    from kdlab.data import ImageData

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("kdlab", "torchvision", "lightning", "numpy")
BEGAN = time.monotonic()
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Device:
    """Where a benchmark computes: all that is different on a GPU is here.

    Args:
        type: ``cpu``, or ``cuda`` for the first NVIDIA GPU.

    Raises:
        ArgumentTypeError: if it is something else, or there is no GPU.
    """

    type: str

    def __post_init__(self) -> None:
        if self.type not in ("cpu", "cuda"):
            raise argparse.ArgumentTypeError(f"{self.type} is neither cpu nor cuda")
        if self.type == "cuda" and not torch.cuda.is_available():
            raise argparse.ArgumentTypeError("cuda needs an NVIDIA GPU, and PyTorch finds none here")

    def pick(self, cpu: Choice, cuda: Choice) -> Choice:
        """Return what holds on this device."""
        return cuda if self.type == "cuda" else cpu

    @property
    def torch(self) -> torch.device:
        """The device, as PyTorch names it."""
        return self.pick(torch.device("cpu"), torch.device("cuda", 0))

    @property
    def pins(self) -> bool:
        """Whether batches are copied to it from pinned memory."""
        return self.type == "cuda"

    def synchronize(self) -> None:
        """Wait until all is computed; a clock is read behind it."""
        if self.type == "cuda":
            torch.cuda.synchronize()

    def keep_images(self, data: ImageData) -> None:
        """Let the loaders of `data` find their images where a Trainer on this device would keep them."""
        where = SimpleNamespace(root_device=self.torch)
        data.trainer = SimpleNamespace(strategy=where, global_rank=0, world_size=1)

    def settings(self) -> dict[str, bool]:
        """Return what this process lets a GPU do: round float32 to TF32, and try cuDNN's algorithms."""
        backends = torch.backends
        found = {"tf32_matmul": backends.cuda.matmul.allow_tf32, "tf32_convolution": backends.cudnn.allow_tf32}
        return self.pick({}, found | {"cudnn_benchmark": backends.cudnn.benchmark})

    def file(self, name: str) -> str:
        """Return the name of a result's file."""
        return self.pick(f"{name}.json", f"{name}_cuda.json")


CPU = Device("cpu")
ONE_GPU = ["--trainer.accelerator", "gpu", "--trainer.devices", "1"]  # options of `kdlab fit`


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of the benchmark, with the option that all of them have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short turn, to see that it runs; nothing is written")
    return parser


def device_options(description: str | None, default: str = "cpu") -> argparse.ArgumentParser:
    """Return `options` of a benchmark that runs on a GPU as well."""
    parser = options(description)
    parser.add_argument("--device", type=Device, default=default, help="cpu or cuda [%(default)s]")
    return parser


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add how many loader processes the competitors have."""
    parser.add_argument("--workers", type=int, help="of each DataLoader; 2 by default, with --device cuda 8")


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """Add the option that `turns_within` needs."""
    parser.add_argument("--minutes", type=float, help="begin no turn that would end later; one is always measured")


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
        **gpu(),
        "load_average_before": os.getloadavg(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {name: _version(name) for name in packages},
        "git_commit": commit(),
        "uncommitted_changes": changes.splitlines() if _git("rev-parse", "HEAD") else None,  # None: nobody can say
        "command": command_line(script, command[1:]),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def gpu() -> dict[str, Any]:
    """Return the GPU and what drives it; only that there is none where there is none."""
    if not torch.cuda.is_available():
        return {"gpu": None}
    import pynvml

    try:
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:  # some containers do not have it
        driver = None
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "gpu_driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def commit() -> str | None:
    """Return the commit that is measured; where there is no git, what the variable GIT_COMMIT says."""
    return _git("rev-parse", "HEAD").strip() or os.environ.get("GIT_COMMIT")


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


def turns_within(turns: int, minutes: float | None) -> Iterator[int]:
    """Yield the numbers of the turns: 0, which does not count, and 1 to `turns`.

    Args:
        turns: how many shall count.
        minutes: since the benchmark was started. No turn begins that would end later if it took as long as the last;
            0 and 1 always do. None for as long as it takes.
    """
    last = 0.0
    for turn in range(turns + 1):
        now = time.monotonic()
        if turn > 1 and minutes is not None and now + last > BEGAN + 60 * minutes:
            print(f"{turn - 1} of {turns} turns were measured: {minutes:g} minutes do not allow more")
            return
        yield turn
        last = time.monotonic() - now


def steps_per_s(step: Callable[[], None], seconds: float, device: Device = CPU) -> float:
    """Return how many steps are taken per second, in at least so many seconds, after one that does not count."""
    step()
    device.synchronize()
    taken, began, now = 0, time.perf_counter(), 0.0
    while taken == 0 or now < seconds:
        step()
        taken, now = taken + 1, time.perf_counter() - began
    device.synchronize()  # a GPU is some steps behind
    return taken / (time.perf_counter() - began)


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


def check_rounding(settings: Mapping[str, Mapping[str, bool]]) -> None:
    """See that all programs let a GPU round float32 to TF32 in the same places.

    Args:
        settings: of each program, what `Device.settings` returns there.
    """
    rounded = {name: (each.get("tf32_matmul"), each.get("tf32_convolution")) for name, each in settings.items()}
    if len(set(rounded.values())) > 1:
        sys.exit(f"the programs round differently, (matrix products, convolutions): {rounded}")


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
    except PackageNotFoundError:  # kdlab may run from a checkout without being installed
        return kdlab.__version__ if package == "kdlab" else None
