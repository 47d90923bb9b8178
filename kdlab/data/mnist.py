"""MNIST and FashionMNIST, from the original IDX files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision
from torch import Tensor

from kdlab.data.base import Part
from kdlab.data.stored import StoredImageData
from kdlab.errors import IntegrityError

_PREFIX: Mapping[Part, str] = {"train": "train", "test": "t10k"}
_UBYTE = 8  # third byte of an IDX file: its numbers are unsigned bytes


class MNIST(StoredImageData):
    """Handwritten digits, 28x28 grey, 10 classes: 60,000 images to train on, 10,000 to test on.

    Taken from ``<data_dir>/MNIST/raw`` (downloaded by torchvision, which does not look at files that are already
    there: here they are compared with the known digests). Pixels are scaled to [0, 1], as the seed studies do;
    ``mean: [0.1307]`` and ``std: [0.3081]`` standardise them. See `ImageData` for the arguments.

    Source: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".
    """

    num_classes: int = 10
    in_channels: int = 1
    image_size: int = 28
    class_names: tuple[str, ...] = tuple("0123456789")
    num_train_images: int = 60_000
    num_test_images: int = 10_000
    default_mean: tuple[float, ...] = (0.0,)
    default_std: tuple[float, ...] = (1.0,)
    folder: ClassVar[str] = "mnist"
    sha256: ClassVar[Mapping[str, str]] = {
        "train": "d18cfd466eb143ac1097fde604dba9eec4116885869d04cc648b510949f9e88c",
        "test": "a0863a96c44e5666edbb30c4071ee79ca0514c621e6349c5967fc78e7305c891",
    }
    raw_sha256: ClassVar[Mapping[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
    _torchvision: ClassVar[Any] = torchvision.datasets.MNIST

    def convert(self, part: Part) -> dict[str, Tensor]:
        """See `StoredImageData.convert`."""
        raw = Path(self.data_dir) / self._torchvision.__name__ / "raw"
        names = [f"{_PREFIX[part]}-images-idx3-ubyte", f"{_PREFIX[part]}-labels-idx1-ubyte"]
        if not all((raw / name).exists() for name in names):
            with self.downloading():
                self._torchvision(self.data_dir, download=True)
        count = self._expected(part).count
        images = read_idx(raw / names[0], (count, self.image_size, self.image_size), self.raw_sha256.get(names[0]))
        labels = read_idx(raw / names[1], (count,), self.raw_sha256.get(names[1]))
        return {"images": images[:, None], "labels": labels.long()}


class FashionMNIST(MNIST):
    """Pieces of clothing, 28x28 grey, 10 classes: 60,000 images to train on, 10,000 to test on.

    Taken from ``<data_dir>/FashionMNIST/raw``. torchvision checks the digests of the archives when it downloads them;
    of files that are already there, sizes and headers are checked. See `ImageData` for the arguments.

    Source: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST".
    """

    class_names: tuple[str, ...] = (
        "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    folder: ClassVar[str] = "fashion_mnist"
    sha256: ClassVar[Mapping[str, str]] = {}
    raw_sha256: ClassVar[Mapping[str, str]] = {}
    _torchvision: ClassVar[Any] = torchvision.datasets.FashionMNIST


def read_idx(path: Path, shape: tuple[int, ...], sha256: str | None) -> Tensor:
    """Read an IDX file of unsigned bytes: two zeros, the type, the number of axes, the axes as big-endian int32.

    Args:
        path: The file.
        shape: What it must hold.
        sha256: Of the whole file, where it is known.

    Returns:
        ``uint8`` of that shape.

    Raises:
        IntegrityError: the file is unreadable, of another size, or damaged.
    """
    fix = "delete the file and run again, it is then downloaded"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"cannot read {path} ({error.strerror}); {fix}") from None
    header = bytes([0, 0, _UBYTE, len(shape)]) + np.array(shape, dtype=">i4").tobytes()
    size = len(header) + int(np.prod(shape))
    if len(content) != size:
        raise IntegrityError(f"{path} has {len(content)} bytes, expected {size}; {fix}")
    if not content.startswith(header):
        raise IntegrityError(f"{path} begins with {content[: len(header)].hex()}, expected {header.hex()}; {fix}")
    digest = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, digest):
        raise IntegrityError(f"{path} is damaged: its SHA-256 is {digest}, expected {sha256}; {fix}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy())
