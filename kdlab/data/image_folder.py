"""Images of your own, in one folder per class."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor

from kdlab.data.base import ImageData, Part
from kdlab.data.files import content_digest
from kdlab.errors import IntegrityError, UsageError

log = logging.getLogger(__name__)

MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
Sample = tuple[str, int]  # path of an image, its class


class ImageFolder(ImageData):
    """Images in ``<data_dir>/train/<class>/`` and ``<data_dir>/test/<class>/``, of any size and format of Pillow.

    Each is turned upright by its EXIF tag, made smaller or larger until its shorter side has `image_size` pixels
    (bicubic, antialiased), and cropped to the square in its middle. All are kept in memory as bytes: N images take
    N x channels x image_size² bytes, and are decoded at each start, by several threads. Classes are the names of the
    folders in alphabetical order. Validation images are held out from ``train``. See `ImageData` for the other
    arguments.

    Args:
        data_dir: Folder with ``train`` and ``test``.
        image_size: Height and width, pixels.
        in_channels: 3 for colours, 1 for grey.
        kwargs: Of `ImageData`.

    Raises:
        UsageError: `image_size` or `in_channels` is out of range, or the images are larger than the memory.
        IntegrityError: a folder or a class is missing or empty, or `test` has other classes than `train`.
    """

    # of ImageNet, as most pretrained networks expect them
    default_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    default_std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __init__(self, data_dir: str, image_size: int = 32, in_channels: int = 3, **kwargs: Any) -> None:
        if image_size < 1:
            raise UsageError(f"data.image_size is {image_size}; give 1 or a larger whole number of pixels")
        if in_channels not in MODES:
            raise UsageError(f"data.in_channels is {in_channels}; give 3 for colours or 1 for grey")
        self.image_size = image_size
        self.in_channels = in_channels
        if in_channels == 1:
            self.default_mean, self.default_std = (0.449,), (0.226,)  # the means over ImageNet's three
        self._samples: dict[Part, list[Sample]] = {}
        self._samples["train"], self.class_names = _list(Path(data_dir) / "train")
        self._samples["test"], tested = _list(Path(data_dir) / "test")
        if tested != self.class_names:
            differing = sorted(set(tested) ^ set(self.class_names))
            raise IntegrityError(f"{data_dir}/train and {data_dir}/test differ in the classes {', '.join(differing)}")
        self.num_classes = len(self.class_names)
        self.num_train_images = len(self._samples["train"])
        self.num_test_images = len(self._samples["test"])
        super().__init__(data_dir=data_dir, **kwargs)

    def read(self, part: Part) -> tuple[Tensor, Tensor, str]:
        """See `ImageData.read`."""
        samples = self._samples[part]
        self._require_memory(len(samples))
        log.info("reading %d images from %s", len(samples), Path(self.data_dir) / part)
        with ThreadPoolExecutor() as pool:
            images = torch.stack(list(pool.map(self._decode, (path for path, _ in samples))))
        labels = torch.tensor([label for _, label in samples])
        return images, labels, content_digest(images, labels)

    def _require_memory(self, images: int) -> None:
        needed = images * self.in_channels * self.image_size**2
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > there:
            raise UsageError(
                f"{images:,} images of {self.image_size} x {self.image_size} pixels take {needed / 2**30:,.1f} GiB, "
                f"but this machine has {there / 2**30:,.1f} GiB of memory; give a smaller data.image_size"
            )

    def _decode(self, path: str) -> Tensor:
        """Return the image in a file, ``[C, H, W]`` ``uint8``."""
        size = (self.image_size, self.image_size)
        try:
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert(MODES[self.in_channels])
                square = ImageOps.fit(upright, size, Image.Resampling.BICUBIC)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's formats raise
            raise IntegrityError(f"{path} is no readable image ({error}); mend or remove it") from None
        return torch.from_numpy(np.array(square)).reshape(*size, self.in_channels).permute(2, 0, 1).contiguous()


def _list(folder: Path) -> tuple[list[Sample], tuple[str, ...]]:
    """Return the images of a part in the order of their names, and the names of the classes.

    Raises:
        IntegrityError: the folder, or a class in it, is missing or empty.
    """
    try:
        listed = torchvision.datasets.ImageFolder(str(folder))
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise IntegrityError(
            f"{folder} holds no folder of images for each class ({reason}); give data.data_dir, a folder with "
            "train/<class>/ and test/<class>/"
        ) from None
    return listed.samples, tuple(listed.classes)
