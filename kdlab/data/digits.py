"""The 1,797 handwritten 8x8 digits that come with scikit-learn: a real data set without a download."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlab.data.base import ImageData, Part
from kdlab.data.files import content_digest
from kdlab.data.split import hold_out

_DEEPEST_INK = 16  # the pixels of load_digits are 0 ... 16
_GREY_STEP = 15  # 16 * 15 = 240 is the largest multiple of 16 that uint8 holds
_TEST_SEED = 0


class Digits(ImageData):
    """Handwritten digits, 8x8 grey, 10 classes: 1,437 images to train and validate on, 360 to test on.

    There is no official test split. Ours is a stratified 20% (360 images), fixed once and for all: no argument, not
    even ``split_seed``, changes it. Pixels are the original 0 ... 16 times 15, scaled to [0, 240 / 255]; ``data_dir``
    is not used.

    Source: Alpaydin, Kaynak, "Optical recognition of handwritten digits", UCI 1998 (its test part, as in scikit-learn).
    """

    num_classes: int = 10
    in_channels: int = 1
    image_size: int = 8
    class_names: tuple[str, ...] = tuple("0123456789")
    num_train_images: int = 1437
    num_test_images: int = 360
    default_mean: tuple[float, ...] = (0.0,)
    default_std: tuple[float, ...] = (1.0,)

    def read(self, part: Part) -> tuple[Tensor, Tensor, str]:
        """See `ImageData.read`."""
        from sklearn.datasets import load_digits  # scikit-learn takes a second to import

        digits = load_digits()
        ink = torch.from_numpy(digits.images).to(torch.uint8)
        assert int(ink.max()) == _DEEPEST_INK
        labels = torch.from_numpy(digits.target).long()
        train, test = hold_out(labels, self.num_test_images, _TEST_SEED)
        chosen = train if part == "train" else test
        images, labels = (ink * _GREY_STEP)[chosen][:, None].contiguous(), labels[chosen]
        return images, labels, content_digest(images, labels)
