"""One split of a data set in memory, and what may be done to the training split: hold out, shrink, add label noise.

All choices are keyed by ``split_seed``, never by the seed of the run. Every run of a study, and the teacher, must see
the same held-out images: with a split per run, a teacher would have been trained on images that its student is
validated on, and the student's model selection would no longer be honest.

Shapes: N images in the split, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdlab.data.counters import Stream, below, counter_bits, permutation
from kdlab.errors import UsageError
from kdlab.types import Batch

NoiseKind = Literal["uniform", "minus_one"]


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        images: ``[N, C, H, W]`` ``uint8``.
        labels: ``[N]`` ``int64`` class index to train on, wrong where label noise struck.
        clean_labels: ``[N]`` ``int64`` class index as the data set states it.
        index: ``[N]`` ``int64`` position of each image in the file it came from. It does not change with the
            held-out share or the number of labels, so what is remembered about an image stays valid.
    """

    images: Tensor
    labels: Tensor
    clean_labels: Tensor
    index: Tensor

    @classmethod
    def whole(cls, images: Tensor, labels: Tensor) -> Split:
        """Wrap all images of one file."""
        return cls(images, labels, labels, torch.arange(len(labels)))

    @property
    def noisy(self) -> Tensor:
        """``[M]`` ``int64``: which images of this split (0 ... N - 1) carry a wrong label."""
        return (self.labels != self.clean_labels).nonzero().squeeze(1)

    @property
    def size_bytes(self) -> int:
        """Memory of all four tensors."""
        return sum(t.nbytes for t in (self.images, self.labels, self.clean_labels, self.index))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, positions: Tensor) -> Split:
        """Return the images at ``positions`` (``[M]`` ``int64``), in that order."""
        if len(positions) == len(self) and bool((positions == torch.arange(len(self))).all()):
            return self
        return Split(*(t.index_select(0, positions) for t in (self.images, self.labels, self.clean_labels, self.index)))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the images in their order, ``size`` at a time, as a loader yields them to evaluate: in view 0."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            index = self.index[part]
            yield Batch(self.images[part], self.labels[part], index, torch.zeros_like(index))

    def to(self, device: torch.device) -> Split:
        """Return this split on ``device``."""
        return Split(*(t.to(device) for t in (self.images, self.labels, self.clean_labels, self.index)))


def divide(
    everything: Split,
    *,
    val_fraction: float,
    train_per_class: int | None,
    label_noise: float,
    label_noise_kind: NoiseKind,
    num_classes: int,
    split_seed: int,
) -> tuple[Split, Split]:
    """Divide the training file into images to train on and images to validate on.

    In this order: hold out, keep few labels, add noise. So the validation images are the same with any of the rest,
    and their labels are clean. The arguments are those of `kdlab.data.ImageData`.

    Raises:
        UsageError: the images do not suffice.
    """
    held_count = round(val_fraction * len(everything))
    if val_fraction > 0 and held_count == 0:
        raise UsageError(
            f"data.val_fraction {val_fraction} of {len(everything)} training images is not one image; "
            "give a larger share, or 0 to train without validation"
        )
    kept, held = hold_out(everything.labels, held_count, split_seed)
    train = everything.select(kept)
    if train_per_class is not None:
        train = train.select(few_labels(train.labels, train_per_class, num_classes, split_seed))
    if label_noise > 0:
        train = add_label_noise(train, label_noise, label_noise_kind, num_classes, split_seed)
    return train, everything.select(held)


def hold_out(labels: Tensor, count: int, split_seed: int) -> tuple[Tensor, Tensor]:
    """Choose ``count`` images with every class at its share, to within one image.

    Args:
        labels: ``[N]`` class indices.
        count: How many images to hold out, 0 ... N.
        split_seed: Other seeds choose other images.

    Returns:
        Positions kept and positions held out, both ascending.
    """
    per_class = torch.bincount(labels)
    quota = _largest_remainders(per_class, count)
    held = _place_in_class(labels, split_seed, Stream.HOLD_OUT) < quota[labels]
    return (~held).nonzero().squeeze(1), held.nonzero().squeeze(1)


def few_labels(labels: Tensor, per_class: int, num_classes: int, split_seed: int) -> Tensor:
    """Choose ``per_class`` images of every class; a larger number keeps all images of a smaller one.

    Args:
        labels: ``[N]`` class indices.
        per_class: How many images of each class to keep.
        num_classes: K.
        split_seed: Other seeds choose other images.

    Returns:
        Positions kept, ascending.

    Raises:
        UsageError: a class has fewer images than that.
    """
    available = torch.bincount(labels, minlength=num_classes)
    if per_class > int(available.min()):
        raise UsageError(
            f"data.train_per_class is {per_class} but class {int(available.argmin())} has {int(available.min())} "
            f"images to train on; give at most {int(available.min())}"
        )
    return (_place_in_class(labels, split_seed, Stream.FEW_LABELS) < per_class).nonzero().squeeze(1)


def add_label_noise(split: Split, share: float, kind: NoiseKind, num_classes: int, split_seed: int) -> Split:
    """Give ``round(share * N)`` images of the split a wrong label.

    ``uniform`` draws one of the other K - 1 classes; ``minus_one`` takes the class before, (y - 1) mod K: the digit
    4 becomes a 3. Which images are struck, and what they become, depends on their position in the file only, so it
    is the same in every run. Validation and test labels are never touched.

    Args:
        split: The training images, after images were held out.
        share: Share of wrong labels, 0 ... 1.
        kind: How a wrong label is made.
        num_classes: K.
        split_seed: Other seeds strike other images.
    """
    struck = _order_of(split.index, split_seed, Stream.NOISY_IMAGES)[: round(share * len(split))]
    labels = split.labels[struck]
    if kind == "minus_one":
        step = torch.full_like(labels, num_classes - 1)
    else:
        bits = counter_bits(split_seed, 0, split.index[struck], Stream.NOISY_LABELS)
        step = 1 + below(bits, num_classes - 1)
    noisy = split.labels.clone()
    noisy[struck] = (labels + step) % num_classes
    return replace(split, labels=noisy)


def _order_of(index: Tensor, split_seed: int, stream: Stream) -> Tensor:
    """Return a random order of the images, keyed by their positions ``index`` in the file."""
    return torch.argsort(counter_bits(split_seed, 0, index, stream), stable=True)


def _place_in_class(labels: Tensor, split_seed: int, stream: Stream) -> Tensor:
    """Return each image's place (0, 1, ...) in a random order of its own class."""
    shuffled = permutation(len(labels), split_seed, 0, stream)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    per_class = torch.bincount(labels)
    first_of_class = per_class.cumsum(0) - per_class
    place = torch.empty_like(labels)
    place[by_class] = torch.arange(len(labels)) - first_of_class[labels[by_class]]
    return place


def _largest_remainders(per_class: Tensor, count: int) -> Tensor:
    """Divide ``count`` among the classes in proportion to their sizes; whole numbers that sum to ``count``."""
    exact = per_class * count  # in units of 1 / N, so that no rounding error decides
    total = int(per_class.sum())
    quota = exact // total
    left = count - int(quota.sum())
    quota[torch.argsort(exact % total, descending=True, stable=True)[:left]] += 1
    return quota
