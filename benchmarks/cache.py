"""Images per second of a distillation step: teacher asked, remembered on the way, remembered, and no teacher at all.

    python benchmarks/cache.py                      # random images; about five minutes on two cores
    python benchmarks/cache.py --data_dir DIR       # the CIFAR-100 training images in DIR/cifar100
    python benchmarks/cache.py --quick              # one short repeat, to see that it runs
    python benchmarks/cache.py --device cuda --steps 100 --repeats 5      # writes cache_cuda.json

ResNet32x4 -> ResNet8x4, batch 64, RandomCropFlip (162 views), SGD: augmentation, student, teacher or cache, loss,
backward, optimizer, in a plain loop without a Trainer. "cold" asks the teacher about every image and remembers the
answers in a new file. "warm, memory" and "warm, disk" find every answer in a complete file of 8.1 million rows; its
numbers are random, as are the weights, because speed does not depend on them. All variants take turns, so that a busy
machine slows them alike; ratios are of the same turn. On a machine that others use as well, those per second of CPU
time are steadier. With --device cuda "memory" is the GPU's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

import measuring
import torch
from measuring import CPU, Device

from kdlab.data import CIFAR100, RandomCropFlip
from kdlab.methods import IndependentStudent, LogitMatching, Method
from kdlab.models import ResNet8x4, ResNet32x4
from kdlab.teachers import CachedTeacher, FrozenTeacher
from kdlab.teachers.resident_table import ResidentTable
from kdlab.teachers.row_file import RowFile
from kdlab.types import Batch

BATCH_SIZE = 64
RATIOS = measuring.over(
    ("warm, memory", "uncached"),
    ("warm, disk", "uncached"),
    ("cold", "uncached"),
    ("warm, memory", "independent"),
    ("warm, disk", "independent"),
)
CODE = ("kdlab/teachers", "kdlab/methods", "kdlab/data", "kdlab/models")


class RandomImages(CIFAR100):
    """Noise in the shape of CIFAR-100."""

    def prepare_data(self) -> None:
        """Nothing to do."""

    def read(self, part):
        """See `ImageData.read`."""
        torch.manual_seed(0)
        count = self.num_train_images if part == "train" else self.num_test_images
        images = torch.randint(256, (count, *self.image_shape), dtype=torch.uint8)
        return images, torch.arange(count) % self.num_classes, "noise"


def make_data(
    data_dir: str | None, padding: int, train_per_class: int | None = None, device: Device = CPU,
    batch_size: int = BATCH_SIZE,
) -> CIFAR100:  # fmt: skip
    options = {"batch_size": batch_size, "val_fraction": 0.0, "augmentation": RandomCropFlip(padding),
               "train_per_class": train_per_class}  # fmt: skip
    data = RandomImages(**options) if data_dir is None else CIFAR100(data_dir=data_dir, **options)
    data.prepare_data()
    device.keep_images(data)
    return data


def cached(data: CIFAR100, teacher: FrozenTeacher, folder: str, place: str, device: Device) -> CachedTeacher:
    made = CachedTeacher(teacher, folder, place=place)
    made.remember(data, "32-true", device.torch)
    return made


def fill_with_anything(file: RowFile) -> dict[str, float]:
    """Write all rows of a file; return its size and how fast that was."""
    block = torch.randn(2**16, file.width).half()
    began = time.perf_counter()
    for rows in torch.split(torch.arange(file.rows), len(block)):
        file.keep(rows, block[: len(rows)])
    return {
        "size_bytes": file.size_bytes,
        "rows": file.rows,
        "written_rows_per_s": file.rows / (time.perf_counter() - began),
    }


def endless_batches(data: CIFAR100) -> Iterator[Batch]:
    loader, epoch = data.train_dataloader(), 0
    while True:
        loader.set_epoch(epoch)
        yield from (batch for batch in loader if len(batch.index) == data.batch_size)
        epoch += 1


def rates_of(method: Method, data: CIFAR100, batches: Iterator[Batch], steps: int, device: Device) -> dict[str, float]:
    """Train for some steps, after one that does not count; images per second of wall time and of CPU time."""
    optimizer = torch.optim.SGD(method.student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    method.student.train()
    for step in range(steps + 1):
        if step == 1:
            device.synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
        batch = data.training_view(next(batches))
        terms = method.losses(method.ask_student(batch), method.ask_teacher(batch), batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    device.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_per_s": steps * BATCH_SIZE / wall, "images_per_cpu_s": steps * BATCH_SIZE / cpu}


def one_turn(methods: dict[str, Method], data: CIFAR100, batches: Iterator[Batch], steps: int, device: Device) -> dict:
    """Measure each variant once; the cold one with a new file."""
    rates = {}
    for name, method in methods.items():
        if name == "cold":
            with tempfile.TemporaryDirectory() as folder:
                inner = method.teacher.teacher
                method.teacher = cached(data, inner, folder, "disk", device)
                rates[name] = rates_of(method, data, batches, steps, device)
        else:
            rates[name] = rates_of(method, data, batches, steps, device)
    return rates


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.device_options(__doc__)
    parser.add_argument("--data_dir", help="folder that holds cifar100/; random images without it")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="per variant and repeat")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    repeats, steps, padding = (1, 1, 0) if args.quick else (args.repeats, args.steps, 4)
    torch.set_num_threads(args.threads)
    report = {"environment": measuring.environment(sys.argv, CODE), "n": repeats, "steps": steps,
              "batch_size": BATCH_SIZE, "images": "random" if args.data_dir is None else "CIFAR-100"}  # fmt: skip
    device = args.device
    data = make_data(args.data_dir, padding, device=device)
    torch.manual_seed(0)
    teacher = FrozenTeacher(ResNet32x4(num_classes=100)).to(device.torch)
    folder = tempfile.mkdtemp()
    try:
        disk, memory = (cached(data, teacher, folder, "disk", device) for _ in range(2))
        report["file"] = fill_with_anything(disk.file)
        began = time.perf_counter()
        # not by `remember`: the numbers in the file are none of this teacher's, which it would notice
        memory._table = ResidentTable(memory.file, device.torch, memory.asked)
        report["file"]["read_and_verified_s"] = time.perf_counter() - began
        methods = {
            "independent": IndependentStudent(student=ResNet8x4(num_classes=100)),
            "uncached": LogitMatching(teacher, student=ResNet8x4(num_classes=100)),
            "cold": LogitMatching(CachedTeacher(teacher), student=ResNet8x4(num_classes=100)),
            "warm, memory": LogitMatching(memory, student=ResNet8x4(num_classes=100)),
            "warm, disk": LogitMatching(disk, student=ResNet8x4(num_classes=100)),
        }
        methods = {name: method.to(device.torch) for name, method in methods.items()}
        batches = endless_batches(data)
        turns = [one_turn(methods, data, batches, steps, device) for _ in range(repeats)]
    finally:
        shutil.rmtree(folder)
    for rate in ("images_per_s", "images_per_cpu_s"):
        each = [{name: turn[name][rate] for name in methods} for turn in turns]
        report[rate] = {name: measuring.spread([turn[name] for turn in each]) for name in methods}
        report[f"ratios_of_{rate}"] = measuring.ratios(each, RATIOS)
        measuring.show(rate, report[rate] | report[f"ratios_of_{rate}"])
    report["turns"] = turns
    print(f"file: {report['file']}")
    if not args.quick:
        measuring.write(report, device.file("cache"))


if __name__ == "__main__":
    main()
