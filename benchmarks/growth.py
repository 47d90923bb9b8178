"""How the cost of training grows with images, classes, views, students and processes; one is changed at a time.

    python benchmarks/growth.py            # random images; about eight minutes on two cores
    python benchmarks/growth.py --quick    # the smallest of each once, to see that it runs; nothing is written

images      of the split: milliseconds of a batch of 64, drawn, cropped, mirrored and normalised; no network
classes     K: milliseconds of a step of ResNet8x4, batch 64, with a remembered teacher, and bytes of its file
views       V per image (crops of paddings 0, 4 and 16, mirrored): the same
students    members of a `SubStudentEnsemble` of ResNet8x2 through ``fit``: images per second of each member
processes   of ``fit`` with ResNet8x4, one thread each, 64 images per process: images per second of all

Steps are in float32 on one thread. All values take turns in changing order; the first turn does not count. Runs of
``fit`` are processes of their own; of their epochs the first does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import measuring
import torch
from cache import BATCH_SIZE, RandomImages, endless_batches, fill_with_anything

from kdlab.data import RandomCropFlip
from kdlab.methods import LogitMatching
from kdlab.models import ResNet8x4
from kdlab.teachers import CachedTeacher, FrozenTeacher
from kdlab.teachers.resident_table import ResidentTable

CODE = ("kdlab", "configs/cifar100", "benchmarks/cache.py")
IMAGES, PADDING = 5_000, 4  # where nothing else is said
VALUES = {
    "images": (5_000, 50_000, 500_000),
    "classes": (10, 100, 1_000),
    "views": (0, 4, 16),  # paddings
    "students": (1, 2, 4),
    "processes": (1, 2),
}
FIT = ["--trainer.accelerator", "cpu", "--data", "cache.RandomImages", "--data.train_per_class", "6",
       "--trainer.limit_test_batches", "1", "--profile", "false", "--name", "run"]  # fmt: skip
RESNET8X2 = {"class_path": "kdlab.models.CifarResNet", "init_args": {"depth": 8, "widths": [16, 32, 64, 128]}}
MEMBER = {"class_path": "IndependentStudent", "init_args": {"student": RESNET8X2}}


def images_of(count: int, num_classes: int = 100, padding: int = PADDING) -> RandomImages:
    """Return random images."""
    kind = type("RandomImages", (RandomImages,), {"num_train_images": count, "num_classes": num_classes,
                "class_names": tuple(map(str, range(num_classes)))})  # fmt: skip
    return kind(batch_size=BATCH_SIZE, val_fraction=0.0, augmentation=RandomCropFlip(padding))


def batch_ms(count: int) -> Callable[[float], dict[str, float]]:
    """Measure a batch without a network."""
    data = images_of(count)
    batches = endless_batches(data)

    def measure(seconds: float) -> dict[str, float]:
        return {"ms": 1e3 / measuring.steps_per_s(lambda: data.training_view(next(batches)), seconds)}

    return measure


def step_ms(num_classes: int, padding: int, folder: Path) -> Callable[[float], dict[str, float]]:
    """Measure a step with a teacher whose file is complete; speed does not depend on its numbers."""
    data = images_of(IMAGES, num_classes, padding)
    teacher = CachedTeacher(
        FrozenTeacher(ResNet8x4(num_classes)), str(folder / f"{num_classes}-{padding}"), place="disk"
    )
    teacher.remember(data, "32-true", torch.device("cpu"))
    size_bytes = fill_with_anything(teacher.file)["size_bytes"]
    teacher._table = ResidentTable(teacher.file, torch.device("cpu"), teacher.asked)  # `remember` would notice
    method = LogitMatching(teacher, student=ResNet8x4(num_classes).train())
    optimizer = torch.optim.SGD(method.student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    batches = endless_batches(data)

    def step() -> None:
        batch = data.training_view(next(batches))
        terms = method.losses(method.ask_student(batch), method.ask_teacher(batch), batch)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()

    return lambda seconds: {"ms": 1e3 / measuring.steps_per_s(step, seconds), "file_bytes": size_bytes}


def fit(options: list[str], epochs: int, folder: Path) -> dict[str, float]:
    """Run ``kdlab fit`` with one thread per process; images per second of its epochs but the first."""
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        command = [sys.executable, "-m", "kdlab", "fit", *options, *FIT, "--runs_dir", runs,
                   "--trainer.max_epochs", str(epochs)]  # fmt: skip
        environment = measuring.with_threads(1)
        done = subprocess.run(command, cwd=measuring.HERE, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        result = json.loads(next(Path(runs).rglob("result.json")).read_text())
    return {"images_per_s": result["train_images_per_s"]}


def students(members: int) -> list[str]:
    """Return the options of one student alone, or of an ensemble."""
    if members == 1:
        return ["--config", "cifar100/independent", "--model.student", json.dumps(RESNET8X2)]
    return ["--config", "cifar100/sub_student_ensemble", "--model.members", json.dumps([MEMBER] * members)]


def measurements(folder: Path, epochs: int, quick: bool) -> dict[str, Callable[[float], dict[str, float]]]:
    """Return what is measured, by "what, value"."""
    values = {what: each[:1] for what, each in VALUES.items()} if quick else VALUES
    found: dict[str, Callable[[float], dict[str, float]]] = {}
    found |= {f"images, {n}": batch_ms(n) for n in values["images"]}
    found |= {f"classes, {k}": step_ms(k, PADDING, folder) for k in values["classes"]}
    found |= {f"views, {2 * (2 * p + 1) ** 2}": step_ms(100, p, folder) for p in values["views"]}
    for members in values["students"]:
        found[f"students, {members}"] = lambda _, n=members: fit(students(n), epochs, folder)
    for processes in values["processes"]:
        ddp = ["--config", "run/ddp", "--trainer.devices", str(processes)]
        found[f"processes, {processes}"] = lambda _, ddp=ddp: fit(
            ["--config", "cifar100/independent", *ddp], epochs, folder
        )
    return found


def main() -> None:
    """Measure, print and write the result."""
    parser = measuring.options(__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="per value and turn, where it is not fit")
    args = parser.parse_args()
    turns, seconds, epochs = (0, 0.0, 1) if args.quick else (args.turns, args.seconds, 3)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = {"environment": measuring.environment(sys.argv, CODE), "n": args.turns, "batch_size": BATCH_SIZE}
    with tempfile.TemporaryDirectory() as name:
        measured = measurements(Path(name), epochs, args.quick)
        answers = []
        for turn in range(turns + 1):
            answers.append({what: measured[what](seconds) for what in measuring.rotated(list(measured), turn)})
            print(f"turn {turn}: {answers[-1]}", flush=True)
    for what in measured:
        report[what] = {
            key: measuring.spread([each[what][key] for each in answers[bool(turns) :]]) for key in answers[0][what]
        }
        measuring.show(what, report[what])
    if not args.quick:
        measuring.write(report | {"turns": answers[1:]}, "growth.json")


if __name__ == "__main__":
    main()
