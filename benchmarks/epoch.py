"""Images per second of whole distillation epochs: ``kdlab fit`` against torchdistill and RepDistiller.

    pip install 'kdlab[bench]'                     # torchdistill
    python benchmarks/epoch.py --data_dir DIR      # CIFAR-100 training images in DIR/cifar100; about 15 minutes
    python benchmarks/epoch.py                     # random images
    python benchmarks/epoch.py --quick             # one short turn; nothing is written
    python benchmarks/epoch.py --repdistiller CHECKOUT ...      # RepDistiller takes turns as well
    python benchmarks/epoch.py --cost --turns 10 ...            # the last two variants alone, in more turns
    python benchmarks/epoch.py --data_dir DIR --device cuda --turns 3 --minutes 9    # writes epoch_cuda.json
    python benchmarks/epoch.py --without_torchdistill ...       # where it cannot be installed

ResNet56 -> ResNet20 (equally many parameters in all frameworks), batch 64, T = 4, label weight 0.1, SGD, the same
5,000 images (on a GPU all 50,000). Everything but validation counts: loader, logging, and in kdlab checkpoints. Each
variant is a process of its own, and they take turns, one epoch each; ratios are of the same turn, and the first turn
does not count.

plain loop                  the loop of `plain_loop.py`, in float32 with two loader workers (eight beside a GPU)
torchdistill                its own distillation box, as its example runs it: float32, as many loader workers. The
                            teacher is in training mode: nothing in the box or the example calls `eval`
torchdistill, eval teacher  the same, the teacher in eval mode
RepDistiller                its own loop of an epoch; only with --repdistiller, a checkout of the repository
kdlab, fp32                 configs/cifar100/logit_matching.yaml with this pair
kdlab, fast                 with configs/run/fast_cpu.yaml, or gpu.yaml: bfloat16 autocast, channels-last
kdlab, fast, remembered     with a CachedTeacher that knows all answers of the run
kdlab, fast, no teacher     configs/cifar100/independent.yaml with this student
..., compiled               with --device cuda: configs/run/compiled.yaml in addition
..., graphs                 with --device cuda: configs/run/cuda_graphs.yaml in addition
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import measuring
import torch
from cache import make_data
from safetensors.torch import save_file

from kdlab.data import CIFAR100
from kdlab.models import ResNet20, ResNet56
from kdlab.types import Batch
from kdlab.weights import save_weights

BATCH_SIZE = 64
CODE = (
    "kdlab",
    "configs",
    *(
        f"benchmarks/{name}.py"
        for name in ("kdlab_epochs", "plain_loop", "torchdistill_epochs", "repdistiller_epochs", "cache")
    ),
)
PACKAGES = (*measuring.PACKAGES, "torchdistill")
FAST, FAST_ON_A_GPU = ["--config", "run/fast_cpu"], ["--config", "run/gpu"]
COMPILED = [*FAST_ON_A_GPU, "--config", "run/compiled"]
GRAPHS = ["--config", "run/cuda_graphs"]
KDLAB = {  # name -> how it is run, and with which teacher
    "kdlab, fp32": ([], "frozen"),
    "kdlab, fast": (FAST, "frozen"),
    "kdlab, fast, remembered": (FAST, "cached"),
    "kdlab, fast, no teacher": (FAST, None),
}
KDLAB_ON_A_GPU = {
    **{name: (FAST_ON_A_GPU if how else [], teacher) for name, (how, teacher) in KDLAB.items()},
    "kdlab, fast, compiled": (COMPILED, "frozen"),
    "kdlab, fast, graphs": ([*FAST_ON_A_GPU, *GRAPHS], "frozen"),
    "kdlab, fast, compiled, graphs": ([*COMPILED, *GRAPHS], "frozen"),
    "kdlab, fast, remembered, compiled": (COMPILED, "cached"),
    "kdlab, fast, remembered, graphs": ([*FAST_ON_A_GPU, *GRAPHS], "cached"),
    "kdlab, fast, remembered, compiled, graphs": ([*COMPILED, *GRAPHS], "cached"),
}
THEIRS = {"torchdistill": False, "torchdistill, eval teacher": True}
DISTILLED = [name for name, (_, teacher) in KDLAB_ON_A_GPU.items() if teacher]
RATIOS = {
    **measuring.over(*((ours, theirs) for theirs in ("plain loop", *THEIRS, "RepDistiller") for ours in DISTILLED)),
    # rates the other way round: costs
    "cost of remembered / no teacher": ("kdlab, fast, no teacher", "kdlab, fast, remembered"),
}
COST = ("kdlab, fast, remembered", "kdlab, fast, no teacher")
TARGETS = {
    "kdlab, fast / torchdistill": "at least 2.5, better 3",
    "kdlab, fast, remembered / torchdistill": "at least 4, better 5",
    "cost of remembered / no teacher": "at most 1.05",
}
TARGETS_ON_A_GPU = {"kdlab, fast, remembered, graphs / torchdistill": "at least 10"}


def prepare(data: CIFAR100, folder: Path) -> None:
    """Write what the variants need: the chosen images, and the teacher, frozen and cached."""
    split = data.train_split
    save_file({"images": split.images, "labels": split.labels}, folder / "images.safetensors")
    torch.manual_seed(0)
    some = data.training_view(Batch(split.images[:64], split.labels[:64], split.index[:64], torch.zeros(64).long()))
    save_weights(measuring.with_statistics(ResNet56(num_classes=100), some.image), folder / "teacher.safetensors", {})
    network = {"class_path": "kdlab.models.ResNet56"}
    frozen = {"network": network, "checkpoint": str(folder / "teacher.safetensors")}
    teachers = {"frozen": {"class_path": "FrozenTeacher", "init_args": frozen}}
    cached = {"teacher": teachers["frozen"], "cache_dir": str(folder / "cache")}
    teachers["cached"] = {"class_path": "CachedTeacher", "init_args": cached}
    for name, teacher in teachers.items():  # JSON is YAML
        (folder / f"{name}.yaml").write_text(json.dumps(teacher))


def kdlab_arguments(name: str, args, folder: Path, train_per_class: int) -> list[str]:
    """Return the options of ``kdlab fit``."""
    how, teacher = args.device.pick(KDLAB, KDLAB_ON_A_GPU)[name]
    data = ["--data.data_dir", args.data_dir] if args.data_dir else ["--data", "cache.RandomImages"]
    taught = ["--model.teacher", str(folder / f"{teacher}.yaml")] if teacher else []
    config = "cifar100/logit_matching" if teacher else "cifar100/independent"
    return [
        "--config", config, *how, *data, *taught, "--data.train_per_class", str(train_per_class),
        "--data.batch_size", str(BATCH_SIZE), "--data.val_fraction", "0", "--data.augmentation", "RandomCropFlip",
        "--model.student", "kdlab.models.ResNet20",
        *args.device.pick(["--trainer.accelerator", "cpu"], measuring.ONE_GPU),
        "--trainer.max_epochs", str(args.turns + 2), "--runs_dir", str(folder / "runs"),
        "--name", name.replace(", ", "-"),
    ]  # fmt: skip


def partners(args, folder: Path, train_per_class: int) -> dict[str, measuring.Partner]:
    """Start a process for each variant."""
    parameters = [sum(p.numel() for p in network(num_classes=100).parameters()) for network in (ResNet20, ResNet56)]
    all_know = {"images": str(folder / "images.safetensors"), "batch_size": BATCH_SIZE, "device": args.device.type,
                "workers": args.workers}  # fmt: skip
    told = all_know | {"epochs": args.turns + 1, "parameters": parameters}
    started = {
        name: measuring.Partner("torchdistill_epochs.py", told | {"eval_teacher": eval_teacher}, args.threads)
        for name, eval_teacher in ({} if args.cost or args.without_torchdistill else THEIRS).items()
    }
    if not args.cost:
        told = all_know | {"threads": args.threads, "pair": ["ResNet20", "ResNet56"], "seconds": None}
        started["plain loop"] = measuring.Partner("plain_loop.py", told, args.threads)
    if args.repdistiller is not None:
        told = all_know | {"checkout": args.repdistiller, "parameters": parameters}
        started["RepDistiller"] = measuring.Partner("repdistiller_epochs.py", told, args.threads)
    kdlab = args.device.pick(KDLAB, KDLAB_ON_A_GPU)
    for name in COST if args.cost else kdlab:
        teacher = kdlab[name][1]
        told = {"arguments": kdlab_arguments(name, args, folder, train_per_class), "fill": teacher == "cached"}
        started[name] = measuring.Partner("kdlab_epochs.py", told, args.threads)
    return started


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.device_options(__doc__)
    parser.add_argument("--data_dir", help="folder that holds cifar100/; random images without it")
    parser.add_argument("--repdistiller", help="checkout of github.com/HobbitLong/RepDistiller, to be measured as well")
    parser.add_argument("--cost", action="store_true", help=f"only {' and '.join(COST)}, into epoch_cost.json")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--without_torchdistill", action="store_true", help="measure the others only")
    parser.add_argument(
        "--images", type=int, help="per epoch, a multiple of 100; 5000 by default, with --device cuda 50000"
    )
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    measuring.add_workers(parser)
    measuring.add_minutes(parser)
    args = parser.parse_args()
    if args.cost and args.repdistiller is not None:
        parser.error("--cost measures kdlab alone; leave --repdistiller out")
    if not args.cost and not args.without_torchdistill and find_spec("torchdistill") is None:
        parser.error("torchdistill is not there; pip install 'kdlab[bench]', or leave it out: --without_torchdistill")
    device = args.device
    args.images, args.workers = args.images or device.pick(5_000, 50_000), args.workers or device.pick(2, 8)
    if args.quick:
        args.turns, args.images = 1, 200
    torch.set_num_threads(args.threads)
    report = {"environment": measuring.environment(sys.argv, CODE, PACKAGES), "n": args.turns,
              "batch_size": BATCH_SIZE, "workers": args.workers,
              "images": "random" if args.data_dir is None else "CIFAR-100", "images_per_epoch": args.images,
              "pair": "ResNet56 -> ResNet20"}  # fmt: skip
    if args.repdistiller is not None:
        report["repdistiller_commit"] = measuring.commit_of(args.repdistiller)
    train_per_class = args.images // CIFAR100.num_classes
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare(make_data(args.data_dir, padding=4, train_per_class=train_per_class), folder)
        variants = partners(args, folder, train_per_class)
        for partner in variants.values():
            stack.enter_context(partner)
        turns = []
        for turn in measuring.turns_within(args.turns, args.minutes):
            answers = {name: variants[name].turn() for name in measuring.rotated(list(variants), turn)}
            rates = {name: answer["images_per_s"] for name, answer in answers.items()}
            print(f"turn {turn}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), flush=True)
            turns += [rates] if turn else []
    settings = {name: answer["settings"] for name, answer in answers.items()}
    measuring.check_rounding(settings)
    report |= {"n": len(turns), **device.pick({}, {"settings": settings})}
    pairs = {label: pair for label, pair in RATIOS.items() if set(pair) <= set(turns[0])}
    report["images_per_s"] = {name: measuring.spread([turn[name] for turn in turns]) for name in turns[0]}
    targets = {label: target for label, target in device.pick(TARGETS, TARGETS_ON_A_GPU).items() if label in pairs}
    report |= {"ratios": measuring.ratios(turns, pairs), "targets": targets, "turns": turns}
    measuring.show("images per second", report["images_per_s"])
    measuring.show("ratios", report["ratios"])
    print(f"targets: {targets}")
    if not args.quick:
        measuring.write(report, device.file("epoch_cost" if args.cost else "epoch"))


if __name__ == "__main__":
    main()
