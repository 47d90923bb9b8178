"""Four networks as one computation, against the same four one by one, and against one network of about their size.

    python benchmarks/ensemble.py                  # about ten minutes on two cores
    python benchmarks/ensemble.py --device cuda    # writes ensemble_cuda.json
    python benchmarks/ensemble.py --quick          # batch 1 once, to see that it runs; nothing is written

"latency" answers a batch in eval mode without gradients; "training" is a forward pass, cross-entropy and a backward
pass. The three take turns, round by round, so that a busy machine slows all of them; a ratio is taken in each round,
and its median, smallest and largest value are reported. Below 1 the fused members (or the single network) are faster
than the members one by one. "auto_fuses" says what `NetworkEnsemble` chooses by itself.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import measuring
import torch
import torch.nn.functional as F
from measuring import Device
from torch import nn

from kdlab.models import CifarResNet, DigitsConv, MNISTNarrowConv, ResNet8x4, VGG11MLPHead
from kdlab.models.ensemble import NetworkEnsemble

CODE = ("kdlab/models",)
MEMBERS = 4
BATCH_SIZES = (1, 8, 32, 128)
SLOW_BATCH, SLOW_PIXELS = 128, 32 * 32  # a training step of this size takes half a minute on one core: left out
SECONDS = 1.5  # of measuring per case, but at least MIN_ROUNDS
MIN_ROUNDS, MAX_ROUNDS = 3, 50


class Subject(NamedTuple):
    """A member, and the single network with about as many parameters as four of them."""

    member: Callable[[], nn.Module]
    single: Callable[[], nn.Module] | None
    image: tuple[int, int, int]


SUBJECTS = {
    "half-width VGG11": Subject(lambda: VGG11MLPHead(width=32, hidden=(256, 128)), VGG11MLPHead, (3, 32, 32)),
    "ResNet8x4": Subject(ResNet8x4, lambda: CifarResNet(8, (64, 128, 256, 512)), (3, 32, 32)),
    "MNISTNarrowConv": Subject(MNISTNarrowConv, None, (1, 28, 28)),
    "DigitsConv": Subject(DigitsConv, lambda: DigitsConv(widths=(7, 13, 12)), (1, 8, 8)),
}


def latency(network: nn.Module, image: torch.Tensor) -> None:
    with torch.inference_mode():
        answers(network, image)


def training(network: nn.Module, image: torch.Tensor) -> None:
    network.zero_grad()
    logits = answers(network, image)
    F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)).backward()


def answers(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """All members' logits as one batch, or those of a single network."""
    return network.members(image).flatten(0, 1) if isinstance(network, NetworkEnsemble) else network(image)


def seconds(job: Callable[[nn.Module, torch.Tensor], None], network: nn.Module, image: torch.Tensor) -> float:
    """Wall time of one call, the accelerator's work included."""
    device = Device(image.device.type)
    device.synchronize()
    begin = time.perf_counter()
    job(network, image)
    device.synchronize()
    return time.perf_counter() - begin


def take_turns(job: Callable, networks: dict[str, nn.Module], image: torch.Tensor, rounds: int | None) -> dict:
    """Measure every network once per round; return the times by network and their ratios to one by one."""
    for network in networks.values():
        network.train(job is training)
        for _ in range(2):  # the first call finds out what can be fused
            last = seconds(job, network, image)
    rounds = rounds or max(MIN_ROUNDS, min(MAX_ROUNDS, int(SECONDS / last / len(networks))))
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            times[name].append(seconds(job, network, image))
    row = {"n": rounds, "median_ms": {name: 1e3 * statistics.median(each) for name, each in times.items()}}
    for name in [name for name in networks if name != "one_by_one"]:
        ratios = [ours / loop for ours, loop in zip(times[name], times["one_by_one"], strict=True)]
        row[f"{name}_ratio"] = measuring.spread(ratios)
    return row


def cases(device: Device, quick: bool) -> Iterator[dict]:
    """Measure each subject at every number of threads and batch size."""
    for threads in (1,) if quick or device.type != "cpu" else (1, 2):
        torch.set_num_threads(threads)
        for name, subject in SUBJECTS.items():
            torch.manual_seed(0)
            members = [subject.member() for _ in range(MEMBERS)]
            networks: dict[str, nn.Module] = {
                "one_by_one": NetworkEnsemble(members, fusion="never"),
                "fused": NetworkEnsemble(copy.deepcopy(members), fusion="always"),
            }
            if subject.single is not None:
                networks["single"] = subject.single()
            networks = {key: network.to(device.torch) for key, network in networks.items()}
            for batch in BATCH_SIZES[:1] if quick else BATCH_SIZES:
                image = torch.randn(batch, *subject.image, device=device.torch)
                auto = NetworkEnsemble(members).to(device.torch).runs_fused(image)
                for job in (latency, training):
                    if job is training and batch == 1:
                        continue  # nobody trains on one image, and batch norm cannot
                    if (
                        job is training
                        and device.type == "cpu"
                        and batch >= SLOW_BATCH
                        and image[0, 0].numel() >= SLOW_PIXELS
                    ):
                        continue
                    case = {"members": name, "threads": threads, "batch": batch, "job": job.__name__}
                    yield {**case, "auto_fuses": auto, **take_turns(job, networks, image, 1 if quick else None)}


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.device_options(__doc__)
    args = parser.parse_args()
    environment, rows = measuring.environment(sys.argv, CODE), []
    for row in cases(args.device, args.quick):
        rows.append(row)
        single = row.get("single_ratio", {"median": float("nan")})["median"]
        print(
            f"{row['members']:17s} {row['threads']} threads  batch {row['batch']:3d}  {row['job']:8s} n {row['n']:2d}  "
            f"one by one {row['median_ms']['one_by_one']:8.2f} ms  fused {row['fused_ratio']['median']:.2f} "
            f"[{row['fused_ratio']['min']:.2f}, {row['fused_ratio']['max']:.2f}]  single {single:.2f}  "
            f"auto {'fuses' if row['auto_fuses'] else 'one by one'}",
            flush=True,
        )
    if not args.quick:
        environment |= {"device": args.device.type, "threads": "see cases", "load_average_after": os.getloadavg()}
        parameters = {
            name: {
                "members": MEMBERS * sum(p.numel() for p in subject.member().parameters()),
                "single": subject.single and sum(p.numel() for p in subject.single().parameters()),
            }
            for name, subject in SUBJECTS.items()
        }
        report = {"environment": environment, "parameters": parameters, "cases": rows}
        measuring.write(report, args.device.file("ensemble"))


if __name__ == "__main__":
    main()
