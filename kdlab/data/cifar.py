"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torchvision
from torch import Tensor

from kdlab.data.base import Part
from kdlab.data.stored import StoredImageData


class CIFAR10(StoredImageData):
    """Photographs of things and animals, 32x32 RGB, 10 classes: 50,000 images to train on, 10,000 to test on.

    Downloaded by torchvision, which compares the digests of its files before it opens them. See `ImageData` for the
    arguments.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    num_classes: int = 10
    in_channels: int = 3
    image_size: int = 32
    class_names: tuple[str, ...] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    num_train_images: int = 50_000
    num_test_images: int = 10_000
    default_mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    default_std: tuple[float, ...] = (0.2470, 0.2435, 0.2616)
    folder: ClassVar[str] = "cifar10"
    _torchvision: ClassVar[Any] = torchvision.datasets.CIFAR10

    def convert(self, part: Part) -> dict[str, Tensor]:
        """See `StoredImageData.convert`."""
        with self.downloading():
            source = self._torchvision(self.data_dir, train=part == "train", download=True)
        images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
        return {"images": images, "labels": torch.tensor(source.targets)}


class CIFAR100(CIFAR10):
    """Photographs of things and animals, 32x32 RGB, 100 classes: 50,000 images to train on, 10,000 to test on.

    The 100 classes form 20 superclasses: class k belongs to ``coarse_of_class[k]``, and the file of a split holds these
    of its images, too, as ``coarse_labels``. See `ImageData` for the arguments.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    num_classes: int = 100
    class_names: tuple[str, ...] = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    )  # fmt: skip
    coarse_of_class: ClassVar[tuple[int, ...]] = (
        4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15,
        0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
        10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19,
        18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
    )  # fmt: skip
    default_mean: tuple[float, ...] = (0.5071, 0.4867, 0.4408)
    default_std: tuple[float, ...] = (0.2675, 0.2565, 0.2761)
    folder: ClassVar[str] = "cifar100"
    sha256: ClassVar[Mapping[str, str]] = {
        "train": "4220044d6e3124d6682a98c7c61bba03d99d68407b78dd1034a95cc64b5b92b1",
        "test": "da78fdede6c6e99ab63dd6f5d3bc2720089acb4d3dd884d79d780b6d76aeb0cb",
    }
    _torchvision: ClassVar[Any] = torchvision.datasets.CIFAR100

    def convert(self, part: Part) -> dict[str, Tensor]:
        """See `StoredImageData.convert`."""
        tensors = super().convert(part)
        coarse = torch.tensor(self.coarse_of_class)
        return {**tensors, "coarse_labels": coarse[tensors["labels"]]}
