"""The file of one split: ``images`` and ``labels`` as safetensors, written once, checked at every start.

Written atomically (a temporary file beside the target, fsync, rename), with the digest of its content in its header.
Reading runs no code from the file.

Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdlab.errors import IntegrityError
from kdlab.tensor_files import write_tensors

_DIGEST_KEY = "sha256"


@dataclass(frozen=True)
class ExpectedSplit:
    """What a split must hold, whether it was read from a file or not.

    Attributes:
        count: Number of images.
        image_shape: (C, H, W).
        num_classes: Labels are 0 ... num_classes - 1.
        sha256: `content_digest` of the true data, where it is known.
    """

    count: int
    image_shape: tuple[int, int, int]
    num_classes: int
    sha256: str | None = None

    def check(self, images: Tensor, labels: Tensor, source: Path | str, fix: str) -> None:
        """Compare shapes, types and labels with what they must be.

        Raises:
            IntegrityError: they differ; the message names ``source`` and ends in ``fix``.
        """
        shape = (self.count, *self.image_shape)
        if tuple(images.shape) != shape or images.dtype != torch.uint8:
            raise IntegrityError(
                f"{source} holds images {list(images.shape)} {images.dtype}, expected {list(shape)} torch.uint8; {fix}"
            )
        if tuple(labels.shape) != (self.count,) or labels.dtype != torch.int64:
            raise IntegrityError(
                f"{source} holds labels {list(labels.shape)} {labels.dtype}, expected [{self.count}] torch.int64; {fix}"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.num_classes:
            raise IntegrityError(f"{source} has labels {low} ... {high}, expected 0 ... {self.num_classes - 1}; {fix}")


def content_digest(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 of all pixels followed by all labels, as they lie in memory (labels are little-endian)."""
    digest = hashlib.sha256()
    for tensor in (images, labels):
        if tensor.numel():  # an empty view cannot be cast
            digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))  # type: ignore[arg-type]
    return digest.hexdigest()


def read_split(path: Path, expected: ExpectedSplit) -> tuple[Tensor, Tensor, str]:
    """Read and verify the file of a split.

    The digest is compared with the known one, else with the one that was written into the header.

    Returns:
        Images ``[N, C, H, W]`` ``uint8``, labels ``[N]`` ``int64``, and the digest of both.

    Raises:
        IntegrityError: the file is missing, unreadable, damaged or holds something else.
    """
    fix = "delete the file and run again, it is then made anew"
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            images, labels = file.get_tensor("images"), file.get_tensor("labels")
    except FileNotFoundError:
        raise IntegrityError(f"{path} does not exist, expected {expected.count} images; check data.data_dir") from None
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise IntegrityError(f"{path} is no readable safetensors file of images and labels ({reason}); {fix}") from None
    expected.check(images, labels, path, fix)
    digest = content_digest(images, labels)
    if (wanted := expected.sha256 or header.get(_DIGEST_KEY)) not in (None, digest):
        raise IntegrityError(f"{path} is damaged: its content has SHA-256 {digest}, expected {wanted}; {fix}")
    return images, labels, digest


def write_split(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the file of a split; a reader sees all of it or nothing.

    Args:
        path: Where it goes; the folder must exist.
        tensors: ``images``, ``labels`` and whatever else belongs to the split.
    """
    write_tensors(path, tensors, {_DIGEST_KEY: content_digest(tensors["images"], tensors["labels"])})
