"""Write a student, read it back, and let it answer real images beside the original.

Shapes: B images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import kdlab
from kdlab.atomic import atomic_write
from kdlab.errors import KDLabError, NumericalError, UsageError
from kdlab.profiling.isolation import bare_copy, describe_device
from kdlab.profiling.timing import Case, distribution, time_cases
from kdlab.types import Batch
from kdlab.verbs.export_formats import ExportFormat, Run
from kdlab.verbs.loaded import LoadedRun
from kdlab.weights import digest

COMPARED_IMAGES = 512
BATCHES = (1, 7, 128)  # in turn: the batch size of the file must be free


@dataclass(frozen=True)
class Parity:
    """How a file answers beside the original.

    Attributes:
        images: test images compared.
        max_difference: largest absolute difference of a logit.
        same_class: images with the same largest logit.
    """

    images: int
    max_difference: float
    same_class: int


def export(run: LoadedRun, file_format: ExportFormat, out: Path, tolerance: float) -> Parity:
    """Write the student of `run` to `out`, if the file answers as the original does; otherwise write nothing.

    Raises:
        UsageError: if the network cannot be exported to this format.
        NumericalError: if a logit differs by more than `tolerance`.
    """
    network, images = bare_copy(run.method.student), real_images(run)
    with tempfile.TemporaryDirectory(prefix="kdlab-export-") as folder:
        made = Path(folder) / out.name
        try:
            file_format.write(network, images[:2], describe(run), made)
        except (KDLabError, OSError):
            raise
        except Exception as error:  # the exporters raise what they like
            raise UsageError(
                f"{type(network).__name__} cannot be exported to {file_format.suffix}: "
                f"{str(error).strip().partition(chr(10))[0]}; try another --format"
            ) from error
        parity = compare(network, file_format.read(made, network), images)
        if not parity.max_difference <= tolerance:  # NaN is no equality either
            raise NumericalError(
                f"the exported {type(network).__name__} differs from the original by up to {parity.max_difference:.2e} "
                f"on {parity.images} test images, the tolerance is {tolerance:g}; nothing was written. "
                "Look for operators that the format computes otherwise, or raise --tolerance"
            )
        with atomic_write(out) as part:
            shutil.copyfile(made, part)
    return parity


@torch.inference_mode()
def compare(network: nn.Module, exported: Run, images: Tensor) -> Parity:
    """Ask both about ``[N, C, H, W]`` images, in batches of different sizes."""
    difference, same, done, turn = 0.0, 0, 0, 0
    while done < len(images):
        batch = images[done : done + BATCHES[turn % len(BATCHES)]]
        expected, got = network(batch), exported(batch)
        # max() of Python would let a NaN go by
        difference = float(torch.maximum(torch.tensor(difference), (got - expected).abs().max()))
        same += int((got.argmax(dim=1) == expected.argmax(dim=1)).sum())
        done, turn = done + len(batch), turn + 1
    return Parity(len(images), difference, same)


def real_images(run: LoadedRun) -> Tensor:
    """Return the first test images as the network reads them, ``[N, C, H, W]``.

    Raises:
        IntegrityError: if the data are missing or damaged.
    """
    run.data.prepare_data()
    split = run.data.test_split
    few = split.select(torch.arange(min(COMPARED_IMAGES, len(split))))
    zeros = torch.zeros(len(few), dtype=torch.int64)
    return run.data.plain_view(Batch(few.images, few.labels, few.index, zeros)).image


def describe(run: LoadedRun) -> dict[str, Any]:
    """Return what the file says of itself: how to feed it, how to read its answers, where it comes from."""
    data = run.data
    lows_and_highs = [(edge - mean) / std for edge in (0, 1) for mean, std in zip(data.mean, data.std, strict=True)]
    return {
        "kdlab": kdlab.__version__,
        "network": type(run.method.student).__name__,
        "weights_sha256": digest(run.method.student),
        "run": run.name,
        "epoch": run.card.get("epoch"),
        "data": type(data).__name__,
        "class_names": list(data.class_names),
        "output": "logits [B, K] before the softmax, float32",
        "preprocessing": {
            "input": "image [B, C, H, W], float32, (pixel / 255 - mean) / std",
            "image_shape": list(data.image_shape),
            "pixel_range": [0, 255],
            "mean": list(data.mean),
            "std": list(data.std),
            "input_range": [min(lows_and_highs), max(lows_and_highs)],
        },
    }


def compare_speed(run: LoadedRun, file_format: ExportFormat, path: Path, batch_size: int, seconds: float) -> list[str]:
    """Time the file and the original in turns, and say so in one line per batch size; nothing without an engine."""
    if file_format.engine is None:
        return []
    images, network = real_images(run), bare_copy(run.method.student)
    exported = file_format.read(path, network)
    cases: dict[tuple[str, int], Case] = {}
    for size in dict.fromkeys((1, batch_size)):
        batch = images[torch.arange(size) % len(images)]
        for name, answer in (("eager", network), (file_format.engine, exported)):
            cases[name, size] = Case(lambda answer=answer, batch=batch: answer(batch))  # type: ignore[misc]
    with torch.inference_mode():
        time_cases(list(cases.values()), seconds)
    lines = []
    for size in dict.fromkeys(size for _, size in cases):
        engine, eager = (distribution(cases[name, size].rounds) for name in (file_format.engine, "eager"))
        lines.append(
            f"batch {size}: {engine.p50:.3f} ms in {file_format.engine} (spread {engine.spread:.3f}), "
            f"{eager.p50:.3f} ms eager (spread {eager.spread:.3f}), p50 on {describe_device(torch.device('cpu'))}"
        )
    return lines
