"""Images per second: kdlab's loader + augmentation + normalisation against torchvision transforms in a DataLoader.

    python benchmarks/data_pipeline.py --data_dir DIR            # about three minutes
    python benchmarks/data_pipeline.py --data_dir DIR --quick    # one short repeat, to see that it runs
    python benchmarks/data_pipeline.py --data_dir DIR --device cuda --repeats 3    # writes data_pipeline_cuda.json

Both deliver the CIFAR-100 training images shuffled, cropped (pad 4), mirrored at random and normalised, as float32
batches. kdlab runs in one thread of one process. The DataLoader has two worker processes with one thread each, and
its main process only collects. The two take turns in one run, so that a busy machine slows both. "Cores used" is CPU
time of all processes over wall time; the rate per core is images over CPU seconds.

With --device cuda both deliver in the GPU's memory. kdlab's images lie there from the start, as in `fit`, and it makes
its views there; the DataLoader has eight workers, and its batches are copied from pinned memory without waiting.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable

import measuring
import torch
from measuring import Device
from plain_loop import PILImages
from torch.utils.data import DataLoader

from kdlab.data import CIFAR100, RandomCropFlip

BATCH_SIZES = (64, 128, 512)
TARGET_RATIO = 20
CODE = ("kdlab/data", "benchmarks/plain_loop.py")


def pil_images(data: CIFAR100, images: int) -> PILImages:
    """Return the first training images as torchvision reads and transforms them."""
    pixels = data.train_split.images[:images].permute(0, 2, 3, 1).contiguous().numpy()
    return PILImages(pixels, data.train_split.labels[:images].tolist(), data.mean, data.std)


def kdlab_batches(data: CIFAR100, images: int) -> Iterable[torch.Tensor]:
    """Yield normalised batches until ``images`` images were seen, epoch after epoch."""
    loader = data.train_dataloader()
    seen = epoch = 0
    while seen < images:
        loader.sampler.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            image = data.training_view(batch).image
            yield image
            seen += len(image)
            if seen >= images:
                return


def torchvision_batches(loader: DataLoader, device: Device) -> Iterable[torch.Tensor]:
    """Yield normalised batches of one whole epoch, so that nothing is prefetched in vain.

    Starting the workers is part of it, as it is in every epoch of a default DataLoader; it takes well under 0.1 s.
    """
    for image, _ in loader:
        yield image.to(device.torch, non_blocking=True)


def measure(batches: Callable[[], Iterable[torch.Tensor]], device: Device) -> dict[str, float]:
    """Drain the batches; return images per second of wall time, and per second of CPU time (with ended children)."""
    cpu, wall, images = cpu_seconds(), time.perf_counter(), 0
    for image in batches():
        images += len(image)
    device.synchronize()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {"images": images, "wall_s": wall, "cpu_s": cpu, "images_per_s": images / wall, "cores_used": cpu / wall,
            "images_per_core_s": images / cpu}  # fmt: skip


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.device_options(__doc__)
    parser.add_argument("--data_dir", default="data", help="folder that holds cifar100/")
    parser.add_argument("--repeats", type=int, default=7)
    measuring.add_workers(parser)
    args = parser.parse_args()
    device = args.device
    workers = args.workers or device.pick(2, 8)
    repeats = 1 if args.quick else args.repeats
    ours, theirs = (
        (20_000, 2_000) if args.quick else device.pick((150_000, 15_000), (1_000_000, 50_000))
    )  # images per repeat
    torch.set_num_threads(1)
    report = {"environment": measuring.environment(sys.argv, CODE), "n": repeats, "workers": workers, "batch_sizes": {}}
    for batch_size in BATCH_SIZES:
        data = CIFAR100(data_dir=args.data_dir, batch_size=batch_size, val_fraction=0.0, augmentation=RandomCropFlip())
        data.prepare_data()
        device.keep_images(data)
        loader = DataLoader(
            pil_images(data, theirs), batch_size, shuffle=True, num_workers=workers, pin_memory=device.pins
        )
        measure(lambda data=data: kdlab_batches(data, 10_000), device)  # a GPU loads its programs at first
        runs = {"kdlab": [], "torchvision": []}
        for _ in range(repeats):
            runs["kdlab"].append(measure(lambda data=data: kdlab_batches(data, ours), device))
            runs["torchvision"].append(measure(lambda loader=loader: torchvision_batches(loader, device), device))
        report["batch_sizes"][batch_size] = row = {
            name: {
                "runs": each,
                **{
                    key: measuring.spread([run[key] for run in each])
                    for key in ("images_per_s", "cores_used", "images_per_core_s")
                },
            }
            for name, each in runs.items()
        }
        row["ratio_per_core"] = measuring.spread(
            [k["images_per_core_s"] / t["images_per_core_s"] for k, t in zip(*runs.values(), strict=True)]
        )
        row["ratio"] = measuring.spread(
            [k["images_per_s"] / t["images_per_s"] for k, t in zip(*runs.values(), strict=True)]
        )
        print_row(batch_size, row)
    if not args.quick:
        measuring.write(report, device.file("data_pipeline"))


def print_row(batch_size: int, row: dict) -> None:
    """Print the medians of one batch size, with smallest and largest value."""
    print(f"batch {batch_size}")
    for name in ("kdlab", "torchvision"):
        rate, cores, per_core = (row[name][key] for key in ("images_per_s", "cores_used", "images_per_core_s"))
        print(
            f"  {name:12s} {rate['median']:9,.0f} images/s [{rate['min']:,.0f}, {rate['max']:,.0f}] on "
            f"{cores['median']:.2f} cores = {per_core['median']:9,.0f} per core"
        )
    ratio = row["ratio"]
    print(f"  ratio {ratio['median']:.1f} [{ratio['min']:.1f}, {ratio['max']:.1f}]")
    ratio = row["ratio_per_core"]
    print(f"  ratio per core {ratio['median']:.1f} [{ratio['min']:.1f}, {ratio['max']:.1f}], target {TARGET_RATIO}")


if __name__ == "__main__":
    main()
