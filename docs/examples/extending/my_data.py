"""A data set: bright squares in one of the four corners, drawn when they are needed."""

import torch
from torch import Tensor

from kdlab.data import ImageData
from kdlab.data.files import content_digest


class Corners(ImageData):
    """8x8 grey images; the class is the corner with the square. See `kdlab.data.ImageData` for the arguments."""

    num_classes = 4
    in_channels = 1
    image_size = 8
    class_names = ("top left", "top right", "bottom left", "bottom right")
    num_train_images = 800
    num_test_images = 200
    default_mean = (0.5,)
    default_std = (0.3,)

    def read(self, part: str) -> tuple[Tensor, Tensor, str]:
        """Return images ``[N, 1, 8, 8]`` uint8, labels ``[N]`` and the SHA-256 of both."""
        count = self.num_train_images if part == "train" else self.num_test_images
        random = torch.Generator().manual_seed(int(part == "train"))
        labels = torch.arange(count) % self.num_classes
        images = torch.randint(0, 200, (count, 1, 8, 8), generator=random, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            row, column = divmod(label, 2)
            image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 55
        return images, labels, content_digest(images, labels)
