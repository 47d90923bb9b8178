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
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

import kdlab
from kdlab.atomic import atomic_write
from kdlab.errors import KDLabError, NumericalError, UsageError, first_line
from kdlab.profiling.isolation import bare_copy
from kdlab.verbs.export_formats import ExportFormat, Run
from kdlab.verbs.loaded import LoadedRun
from kdlab.weights import digest

COMPARED_IMAGES = 512
BATCHES = (1, 7, 128)  # in turn: the batch size of the file must be free
# pre-hooks that compute a weight from others -> what makes the result a plain weight
COMPUTING: dict[type, str] = {
    SpectralNorm: "torch.nn.utils.remove_spectral_norm",
    WeightNorm: "torch.nn.utils.remove_weight_norm",
    BasePruningMethod: "torch.nn.utils.prune.remove",
}


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
    """Write the student of `run` to `out`, if the file answers as the student itself does; otherwise write nothing.

    Raises:
        UsageError: if the network cannot be exported to this format.
        NumericalError: if a logit differs by more than `tolerance`.
    """
    original, images = run.method.student.eval(), real_images(run)
    copied = copy_without_hooks(original)
    with tempfile.TemporaryDirectory(prefix="kdlab-export-") as folder:
        made = Path(folder) / out.name
        try:
            file_format.write(copied, images[:2], describe(run), made)
        except (KDLabError, OSError):
            raise
        except Exception as error:  # the exporters raise what they like
            raise UsageError(
                f"{type(original).__name__} cannot be exported to {file_format.suffix}: "
                f"{first_line(error)}; try another --format"
            ) from error
        # with the student itself: a copy has lost the same hooks as the file
        parity = compare(original, file_format.read(made, copied), images)
        if not parity.max_difference <= tolerance:  # NaN is no equality either
            raise NumericalError(
                f"the exported {type(original).__name__} differs from the original by up to "
                f"{parity.max_difference:.2e} on {parity.images} test images, the tolerance is {tolerance:g}; nothing "
                "was written. Look for hooks, which no file holds, and for operators that the format computes "
                "otherwise, or raise --tolerance"
            )
        with atomic_write(out) as part:
            shutil.copyfile(made, part)
    return parity


def copy_without_hooks(network: nn.Module) -> nn.Module:
    """Return a copy of a network that computes nothing outside its forward passes.

    Raises:
        UsageError: if hooks compute its weights, or it cannot be copied.
    """
    for path, module in network.named_modules():
        for hook in module._forward_pre_hooks.values():
            remedy = next((function for kind, function in COMPUTING.items() if isinstance(hook, kind)), None)
            if remedy is not None:
                name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", "weight")
                raise UsageError(
                    f"layer {path or '(the network itself)'} of {type(network).__name__} computes its {name} in a hook "
                    f"before each pass, which no file holds; make it a plain parameter with {remedy}(layer, '{name}'), "
                    "or use torch.nn.utils.parametrizations in the network"
                )
    try:
        return bare_copy(network)
    except RuntimeError as error:
        raise UsageError(
            f"{type(network).__name__} cannot be copied, as exporting needs: {first_line(error)}; keep only "
            "parameters and buffers as its tensors"
        ) from error


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
    return run.data.plain_view(next(run.data.test_split.batches(COMPARED_IMAGES))).image


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
