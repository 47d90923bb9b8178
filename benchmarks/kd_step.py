"""Images per second of a distillation step: a plain PyTorch loop, and kdlab in all its ways.

    python benchmarks/kd_step.py --data_dir DIR      # the CIFAR-100 training images in DIR/cifar100; about ten minutes
    python benchmarks/kd_step.py                     # random images
    python benchmarks/kd_step.py --quick             # one short turn without real compiling; nothing is written
    python benchmarks/kd_step.py --data_dir DIR --device cuda --turns 4 --seconds 1     # writes kd_step_cuda.json
    python benchmarks/kd_step.py --data_dir DIR --device cuda --batch_size 512 ...      # kd_step_batch512_cuda.json

ResNet32x4 -> ResNet8x4, batch 64, crop and flip, cross-entropy + T^2 KL at T = 4, SGD, everything but the Trainer
(what that adds to a step: overhead.py).

plain        the loop of `plain_loop.py`, in a process of its own that takes turns with this one
independent  kdlab's loader, views, losses and optimizer; labels only
uncached     the same with the teacher
remembered   the same with a complete `CachedTeacher` in memory (with --device cuda, the GPU's); its numbers are random,
             speed does not care
fp32         as it is; a GPU rounds to TF32 in convolutions, on both sides, as PyTorch lets it by default
fast         configs/run/fast_cpu.yaml, or gpu.yaml: bfloat16 autocast, channels-last
compiled     configs/run/compiled.yaml in addition
graphs       with --device cuda: compiled with mode reduce-overhead, CUDA graphs

matmul       billions of multiply-adds per second of square matrix products of 512 to 4096 rows (2048 to 8192 on a GPU)
             in the number types; the fastest of the run is called the peak, and a variant's utilization is its
             multiply-adds over that (over that of TF32 where float32 is rounded to it)

Each variant works for some seconds in each turn, the first variant of a turn being another one each time; ratios are of
the same turn. The first step of each turn does not count, nor does the whole first turn, in which networks are
compiled. Before, one batch goes both ways, with the teacher asked and with its answers remembered: pixels and losses
must be the same, or the run stops.
"""

from __future__ import annotations

import copy
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import measuring
import torch
import torch._dynamo
from cache import BATCH_SIZE, cached, endless_batches, fill_with_anything, make_data
from measuring import Device
from PIL import Image
from plain_loop import TEMPERATURE, loss_of
from torch import nn
from torchvision.transforms import functional

from kdlab.allocation import keep_freed_memory
from kdlab.data import CIFAR100
from kdlab.methods import IndependentStudent, LogitMatching, Method
from kdlab.methods.finite import LossWatch
from kdlab.models import ResNet8x4, ResNet32x4
from kdlab.profiling import MACsProfiler
from kdlab.run.fast import ChannelsLast, CompiledNetworks
from kdlab.teachers import CachedTeacher, FrozenTeacher, Teacher
from kdlab.teachers.resident_table import ResidentTable
from kdlab.types import Batch

CODE = ("kdlab", "configs/run", "benchmarks/plain_loop.py", "benchmarks/cache.py")
PIXEL_LIMIT = 1e-5  # of normalised pixels, which reach 2.1: rounding of float32
# relative; bfloat16 rounds to 1/256 at each layer, remembered answers to 1/2048
LOSS_LIMITS = {
    "uncached, fp32": 1e-5, "remembered, fp32": 1e-3, "uncached, fast": 0.005, "remembered, fast": 0.005,
    "uncached, fast, compiled": 0.005, "remembered, fast, compiled": 0.005,
    "uncached, fast, graphs": 0.005, "remembered, fast, graphs": 0.005,
}  # fmt: skip
# in addition, of fp32 on a GPU: TF32 rounds to 1/2048, and other weights where they are folded into the convolutions;
# emulated on a processor the losses differ by 2e-5
TF32_LIMIT = 5e-4
HOW = {"fp32": (False, None), "fast": (True, None), "fast, compiled": (True, "default")}  # bfloat16, how compiled
HOW_ON_A_GPU = HOW | {"fast, graphs": (True, "reduce-overhead")}
TARGETS = {
    "uncached, fast / plain": "at least 2.5",
    "remembered, fast, compiled / plain": "at least 6",
    "cost of remembered / independent, fast, compiled": "at most 1.05",
}
UTILIZATION = {  # variant -> number type of its matrix products
    "plain": "fp32", "uncached, fp32": "fp32", "uncached, fast": "bf16", "independent, fp32": "fp32",
    "independent, fast": "bf16", "remembered, fast, compiled": "bf16",
}  # fmt: skip
ON_A_GPU = {"plain": "tf32"} | {
    f"{who}, {how}": "bf16" if fast else "tf32"
    for who in ("independent", "uncached", "remembered")
    for how, (fast, _) in HOW_ON_A_GPU.items()
}
TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


class Variant:
    """A method and how `fit` runs its steps, without the Trainer.

    Args:
        method: what learns from what.
        data: makes the views.
        device: where.
        fast: bfloat16 and channels-last.
        compiled: what compiles the networks; None for not at all.
    """

    def __init__(
        self, method: Method, data: CIFAR100, device: Device, fast: bool, compiled: CompiledNetworks | None
    ) -> None:
        self.method, self.data, self.device, self.fast = method.to(device.torch), data, device, fast
        self.callbacks = ([ChannelsLast()] if fast else []) + ([compiled] if compiled else [])
        self.watch, self.steps = LossWatch(), count()
        self.trainer = SimpleNamespace(train_dataloader=data.train_dataloader())
        for callback in self.callbacks:
            callback.setup(self.trainer, method, "fit")
        self.optimizer = method.configure_optimizers()
        for callback in self.callbacks:
            callback.on_fit_start(self.trainer, method)
        method.student.train()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch that has been augmented."""
        for callback in self.callbacks:
            callback.on_train_batch_start(self.trainer, self.method, batch, 0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
            terms = self.method.losses(self.method.ask_student(batch), self.method.ask_teacher(batch), batch)
        return torch.stack(list(terms.values())).sum()

    def step(self, batch: Batch) -> None:
        """Take one step with a batch of the loader."""
        batch = self.data.training_view(batch)
        loss = self.loss(batch)
        # as `fit` does: a GPU's losses are read some steps later
        self.watch.add(next(self.steps), 0, batch, {"loss": loss})
        self.watch.look(self.method, wait=False)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for callback in self.callbacks:
            callback.on_train_batch_end(self.trainer, self.method, None, batch, 0)

    def images_per_s(self, batches: Iterator[Batch], seconds: float) -> float:
        """Take steps for so long, after one that does not count."""
        steps_per_s = measuring.steps_per_s(lambda: self.step(next(batches)), seconds, self.device)
        return self.data.batch_size * steps_per_s


@torch.no_grad()
def matmul_gmacs_per_s(name: str, device: Device, sizes: Sequence[int], in_a_row: int, repeats: int = 4) -> float:
    """Billions of multiply-adds per second of a matrix product, the best of some sizes and repeats.

    Args:
        name: of the number type.
        device: that computes it.
        sizes: rows of the square matrices.
        in_a_row: calls whose time is taken together.
        repeats: per size; the best counts, so the first ones warm up.
    """
    best = 0.0
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    for size in sizes:
        left, right = (torch.rand(size, size, device=device.torch).to(TYPES[name]) for _ in range(2))
        for _ in range(repeats):
            device.synchronize()
            began = time.perf_counter()
            for _ in range(in_a_row):
                left @ right
            device.synchronize()
            best = max(best, in_a_row * size**3 / (time.perf_counter() - began) / 1e9)
    torch.backends.cuda.matmul.allow_tf32 = False  # PyTorch's default, with which all else is measured
    return best


def ratios_of(how: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return which variants are compared, for `measuring.ratios`."""
    return {
        **measuring.over(
            *((f"{who}, {each}", "plain") for who in ("uncached", "remembered") for each in how),
            *((f"remembered, {each}", f"uncached, {each}") for each in how),
        ),
        # rates the other way round: costs
        **{f"cost of remembered / independent, {each}": (f"independent, {each}", f"remembered, {each}")
           for each in how},
    }  # fmt: skip


def macs_per_image(name: str, student: int, teacher: int) -> int:
    """Multiply-adds of a training image: the student's three times (forward, two gradients), the teacher's once."""
    asks_teacher = name == "plain" or name.startswith("uncached")
    return 3 * student + teacher * asks_teacher


def make_variants(
    data: CIFAR100, device: Device, student: nn.Module, teacher: nn.Module, remembered: CachedTeacher, quick: bool
) -> dict[str, Variant]:
    """Return all variants, each with a student and, where it is asked, a teacher of its own, all of equal weights."""

    def matching(source: Teacher) -> Method:
        weights = {"temperature": TEMPERATURE, "label_weight": 1.0, "logit_weight": 1.0}
        return LogitMatching(source, student=copy.deepcopy(student), **weights)

    who: dict[str, Callable[[], Method]] = {
        "independent": lambda: IndependentStudent(student=copy.deepcopy(student)),
        "uncached": lambda: matching(FrozenTeacher(copy.deepcopy(teacher))),
        "remembered": lambda: matching(remembered),
    }
    return {
        f"{name}, {how}": Variant(make(), data, device, fast, mode and compiling(mode, quick))
        for name, make in who.items()
        for how, (fast, mode) in device.pick(HOW, HOW_ON_A_GPU).items()
    }


def compiling(mode: str, quick: bool) -> CompiledNetworks:
    """Return what compiles networks; in a quick run it only traces them."""
    return CompiledNetworks(backend="eager") if quick else CompiledNetworks(mode)


def by_pil(data: CIFAR100, batch: Batch) -> torch.Tensor:
    """Return the images ``[B, C, H, W]`` that PIL and torchvision make of the views of a batch of the loader."""
    padding, seen = data.augmentation.padding, []
    for image, view in zip(batch.image, batch.view.tolist(), strict=True):
        corner, mirrored = divmod(view, 2)
        down, right = divmod(corner, 2 * padding + 1)
        picture = functional.pad(Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), padding)
        picture = functional.crop(picture, down, right, *image.shape[1:])
        picture = functional.hflip(picture) if mirrored else picture
        seen.append(functional.normalize(functional.to_tensor(picture), data.mean, data.std))
    return torch.stack(seen)


def check_sameness(
    data: CIFAR100, batch: Batch, student: nn.Module, teacher: nn.Module, variants: dict[str, Variant]
) -> dict[str, float]:
    """Send one batch through the plain loop and through kdlab; stop when pixels or losses differ."""
    theirs, ours = by_pil(data, batch).to(batch.image.device), data.training_view(batch)
    tf32 = TF32_LIMIT if batch.image.is_cuda and torch.backends.cudnn.allow_tf32 else 0.0
    loss = loss_of(copy.deepcopy(student).train(), teacher, theirs, batch.label).item()
    found = {"largest_pixel_difference": (theirs - ours.image).abs().max().item(), "plain_loss": loss}
    limits = {"largest_pixel_difference": PIXEL_LIMIT}
    for variant in (each for each in LOSS_LIMITS if each in variants):
        name = f"relative_loss_difference, {variant}"
        found[name] = abs(variants[variant].loss(ours).item() / loss - 1)
        limits[name] = LOSS_LIMITS[variant] + tf32 * variant.endswith("fp32")
    wrong = [f"{name} is {found[name]:.2g}, at most {limit:g} allowed" for name, limit in limits.items()
             if not found[name] <= limit]  # fmt: skip
    if wrong:
        sys.exit("the plain loop and kdlab compute different things: " + "; ".join(wrong))
    return found | {f"limit of {name}": limit for name, limit in limits.items()}


def measure(data: CIFAR100, args, folder: str) -> dict:
    """Check that all compute the same, then let them take turns."""
    torch.manual_seed(0)
    device = args.device
    batches = endless_batches(data)
    batch = next(batches)
    student = ResNet8x4(num_classes=100).to(device.torch)
    teacher = ResNet32x4(num_classes=100).to(device.torch)
    measuring.with_statistics(teacher, data.training_view(batch).image)
    remembered = cached(data, FrozenTeacher(copy.deepcopy(teacher)), folder, "disk", device)
    remembered.teach(data.training_view(batch))  # true answers to one batch, for the comparison
    variants = make_variants(data, device, student, teacher, remembered, args.quick)
    same = check_sameness(data, batch, student, teacher, variants)
    macs = [MACsProfiler().profile(network, (3, 32, 32)).macs for network in (student, teacher)]
    fill_with_anything(remembered.file)
    remembered._table = ResidentTable(remembered.file, device.torch, remembered.asked)  # `remember` would notice
    images = None if args.data_dir is None else str(Path(args.data_dir, "cifar100", "train.safetensors").resolve())
    told = {"images": images, "batch_size": args.batch_size, "threads": args.threads, "seconds": args.seconds,
            "pair": ["ResNet8x4", "ResNet32x4"], "device": device.type, "workers": args.workers}  # fmt: skip
    product = device.pick(
        partial(matmul_gmacs_per_s, device=device, sizes=(512, 1024, 2048, 4096), in_a_row=1),
        partial(matmul_gmacs_per_s, device=device, sizes=(2048, 4096, 8192), in_a_row=20),
    )
    turns, settings = [], {"kdlab": device.settings()}

    def take_plain_turn() -> float:
        answer = plain.turn()
        settings["plain"] = answer["settings"]
        return answer["images_per_s"]

    with measuring.Partner("plain_loop.py", told, args.threads) as plain:
        measured: dict[str, Callable[[], float]] = {"plain": take_plain_turn}
        measured |= {f"matmul, {name}": partial(product, name) for name in types_of(device)}
        measured |= {name: partial(each.images_per_s, batches, args.seconds) for name, each in variants.items()}
        for turn in measuring.turns_within(args.turns, args.minutes):
            rates = {name: measured[name]() for name in measuring.rotated(list(measured), turn)}
            print(f"turn {turn}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()), flush=True)
            turns += [rates] if turn else []
    measuring.check_rounding(settings)
    found = {"same_batch": same, "macs": dict(zip(("student", "teacher"), macs, strict=True)), "turns": turns}
    return found | device.pick({}, {"settings": settings})


def types_of(device: Device) -> list[str]:
    """Return the number types whose matrix products are timed."""
    return device.pick(["fp32", "bf16"], ["fp32", "tf32", "bf16"])


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.device_options(__doc__)
    parser.add_argument("--data_dir", help="folder that holds cifar100/; random images without it")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="per variant and turn")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE)
    parser.add_argument("--threads", type=int, default=2, help="of the plain loop and of kdlab, each")
    measuring.add_workers(parser)
    measuring.add_minutes(parser)
    args = parser.parse_args()
    device = args.device
    args.workers = args.workers or device.pick(2, 8)
    if args.quick:
        args.turns, args.seconds = 1, 0.0
    keep_freed_memory()  # as the command line does
    # all variants are of one class: none may fall back to its plain network in silence because too many are compiled
    torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit = 64, True
    torch.set_num_threads(args.threads)
    report = {"environment": measuring.environment(sys.argv, CODE), "n": args.turns, "seconds_per_turn": args.seconds,
              "batch_size": args.batch_size, "workers": args.workers, "pair": "ResNet32x4 -> ResNet8x4",
              "images": "random" if args.data_dir is None else "CIFAR-100"}  # fmt: skip
    data = make_data(args.data_dir, padding=1 if args.quick else 4, device=device, batch_size=args.batch_size)
    folder = tempfile.mkdtemp()
    try:
        report |= measure(data, args, folder)
    finally:
        shutil.rmtree(folder)
    report["n"] = len(report["turns"])
    spreads = {name: measuring.spread([turn[name] for turn in report["turns"]]) for name in report["turns"][0]}
    report["matmul_gmacs_per_s"] = {name: spreads.pop(f"matmul, {name}") for name in types_of(device)}
    peaks = {name: products["max"] for name, products in report["matmul_gmacs_per_s"].items()}
    report["images_per_s"] = spreads
    report["utilization"] = {
        name: measuring.spread([turn[name] * macs_per_image(name, **report["macs"]) / peaks[dtype] / 1e9
                                for turn in report["turns"]])
        for name, dtype in device.pick(UTILIZATION, ON_A_GPU).items()
    }  # fmt: skip
    report["ratios"] = measuring.ratios(report["turns"], ratios_of(device.pick(HOW, HOW_ON_A_GPU)))
    report["targets"] = device.pick(TARGETS, {})
    measuring.show("images per second", report["images_per_s"])
    measuring.show("billions of multiply-adds per second of a matrix product", report["matmul_gmacs_per_s"])
    measuring.show("utilization", report["utilization"])
    measuring.show("ratios", report["ratios"])
    print(f"targets: {report['targets']}\nsame batch: {report['same_batch']}")
    if not args.quick:
        name = "kd_step" if args.batch_size == BATCH_SIZE else f"kd_step_batch{args.batch_size}"
        measuring.write(report, device.file(name))


if __name__ == "__main__":
    main()
