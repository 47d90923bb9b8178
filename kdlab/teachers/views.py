"""The views of training images as rows of a table: row = image * V + view.

Shapes: B rows, V views per image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.teachers.base import Images, TrainingImages
from kdlab.types import Batch

_PROBED_VIEWS = 64  # of a made-up image, to tell augmentations apart


def asked_rows(images: TrainingImages) -> Tensor:
    """Return the numbers of all rows that training may ask for: all views of the images that are trained on."""
    views = countable_views(images)
    return (images.train_split.index[:, None] * views + torch.arange(views)).flatten().sort().values


def used_rows(images: TrainingImages, draw: Callable[[int], tuple[Tensor, Tensor]], epochs: int) -> Tensor:
    """Return the numbers of the rows that a run asks for.

    Args:
        images: the data.
        draw: epoch -> index and view of its images, of any shape; `kdlab.data.loader.BatchLoader.draw`.
        epochs: of the run.
    """
    views = countable_views(images)
    used = torch.zeros(images.num_train_images * views, dtype=torch.bool)
    for epoch in range(epochs):
        index, view = draw(epoch)
        used[(index * views + view).flatten().cpu()] = True
    return used.nonzero().squeeze(1)


def views_of(images: TrainingImages, rows: Tensor, split: Images | None = None) -> Batch:
    """Return the inputs that belong to rows, as training makes them.

    Args:
        images: the data.
        rows: ``[B]`` numbers among `asked_rows`.
        split: the training images on the device of `rows`; by default those of `images`.
    """
    views = countable_views(images)
    index, view = rows // views, rows % views
    split = images.train_split if split is None else split
    places = torch.arange(len(split.index), device=rows.device)
    place = places.new_full((images.num_train_images,), -1).scatter_(0, split.index, places)[index]
    return images.training_view(Batch(split.images[place], split.labels[place], index, view))


def countable_views(images: TrainingImages) -> int:
    """Return how many views there are of each image.

    Raises:
        UsageError: if they are endlessly many, with the cause and the fix.
    """
    if images.num_views is not None:
        return images.num_views
    cause, fix = ("mixing", "null") if images.mixing is not None else ("augmentation", "RandomCropFlip")
    raise UsageError(
        f"data.{cause} {getattr(images, cause)} makes endlessly many inputs of one image, so the teacher's answers "
        f"cannot be remembered; use the teacher without CachedTeacher, or set data.{cause}: {fix}"
    )


def views_digest(images: TrainingImages) -> str:
    """Return the SHA-256 of what a network sees of some views of a made-up image: of what an augmentation does."""
    views = countable_views(images)
    count = min(views, _PROBED_VIEWS)
    view = torch.linspace(0, views - 1, count).long()
    pixels = torch.arange(prod(images.image_shape)).mul(97).remainder(251).to(torch.uint8)
    image = pixels.view(1, *images.image_shape).repeat(count, 1, 1, 1)
    zeros = torch.zeros_like(view)
    seen = images.training_view(Batch(image, zeros, zeros, view)).image
    return hashlib.sha256(seen.contiguous().numpy().tobytes()).hexdigest()
