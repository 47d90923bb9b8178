"""``python -m kdlab profile``: what networks cost, side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdlab.errors import UsageError
from kdlab.verbs.arguments import VerbParser, check_file, image_shape, positive_float, positive_int

if TYPE_CHECKING:
    from kdlab.verbs.targets import Target

DEFAULT_DATA = "CIFAR100"
ENDINGS = {".json": "json", ".csv": "csv", ".md": "markdown"}
MOST_THREADS = 1024
VARIANTS = ("eager", "autocast_bf16", "bf16", "compiled", "compiled_bf16")


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "profile",
        "TARGET [TARGET ...] [options]",
        "Measure parameters, size, MACs, latency and energy of networks, side by side. A TARGET is a run's folder,\n"
        "a config, a model file (class_path, init_args), or a class with or without arguments. Latencies are measured\n"
        "in turns; a device with an energy counter takes about a minute more per network.",
        ["runs/digits/logit_matching-seed0 digits/sub_student_ensemble",
         "ResNet20 VGG11MLPHead configs/models/resnet8x4.yaml --data CIFAR100 --threads 1",
         "'TimmModel(name=vit_tiny_patch16_224, options={img_size: 32, patch_size: 4})' --format markdown"],
    )  # fmt: skip
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="what to profile")
    parser.add_argument(
        "--data", metavar="NAME", help=f"data set whose images and classes model files and classes get [{DEFAULT_DATA}]"
    )
    parser.add_argument("--image_shape", metavar="C,H,W", type=image_shape, help="instead of --data")
    parser.add_argument("--num_classes", metavar="K", type=positive_int, help="with --image_shape [100]")
    parser.add_argument("--batch_size", metavar="N", type=positive_int, default=128, help="beside batch 1 [128]")
    parser.add_argument(
        "--seconds", metavar="S", type=positive_float, default=1.0, help="to time each batch size of each network [1]"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["eager"], help="ways to run it [eager]")
    parser.add_argument("--thop_style", action="store_true", help="also count MACs as the thop package does")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="where to run it [auto]")
    parser.add_argument("--threads", metavar="N", type=positive_int, help="of torch on the processor [all cores]")
    parser.add_argument(
        "--format",
        choices=("table", *ENDINGS.values()),
        help="[table, or what the ending of --out says: .json .csv .md]",
    )
    parser.add_argument("--out", metavar="FILE", help="write there, replacing it, instead of to the screen")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Profile what the arguments name and show or write the comparison.

    Raises:
        UsageError: if an option or target is wrong.
        IntegrityError: if a run's weights are missing or damaged.
    """
    options = parser().parse_args(arguments)
    if options.out:
        check_file(Path(options.out))
    if options.data and (options.image_shape or options.num_classes):
        raise UsageError("--data has a shape and classes of its own; leave --image_shape and --num_classes out")

    from kdlab.atomic import write_text
    from kdlab.messages import set_up_messages
    from kdlab.verbs import comparison_table as shown
    from kdlab.verbs.comparison import measure
    from kdlab.verbs.device import find_device
    from kdlab.verbs.targets import Images, find_target

    set_up_messages()
    device = find_device(options.accelerator)
    if options.image_shape or options.num_classes:
        images = Images(options.image_shape or (3, 32, 32), options.num_classes or 100)
    else:
        images = Images.of_data(options.data or DEFAULT_DATA)
    with _threads(options.threads):
        targets = _named_apart([find_target(text, images) for text in options.targets])
        variants = tuple(dict.fromkeys(options.variants))
        costs = measure(targets, device, options.batch_size, options.seconds, variants, options.thop_style)
        text = {
            "table": lambda: shown.as_table(costs, device, to_screen=options.out is None),
            "markdown": lambda: shown.as_markdown(costs, device),
            "csv": lambda: shown.as_csv(costs, device),
            "json": lambda: shown.as_json(costs, device),
        }[options.format or ENDINGS.get(Path(options.out or "").suffix, "table")]()
    if options.out:
        write_text(options.out, text)
        print(f"written to {options.out}")
    else:
        sys.stdout.write(text)


def _named_apart(targets: list[Target]) -> list[Target]:
    """Number what is named twice, which is how two profiles of one network are compared."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    numbered = []
    for target in targets:
        seen[target.name] = seen.get(target.name, 0) + 1
        again = seen[target.name] > 1
        numbered.append(replace(target, name=f"{target.name} #{seen[target.name]}") if again else target)
    return numbered


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    import torch

    if number is not None and number > MOST_THREADS:
        raise UsageError(f"--threads is {number}; give {MOST_THREADS} at most, as many as there are cores is usual")
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
