"""The two records that travel through kdlab: a batch of images and what a network says about it.

Shapes: B images in the batch, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

SEED_STRIDE = 2**32  # between the seeds of what draws for itself in a run: streams of images, members of an ensemble
NO_FEATURES: Mapping[str, Tensor] = MappingProxyType({})


class Batch(NamedTuple):
    """Some images of one split.

    Attributes:
        image: ``[B, C, H, W]``: ``uint8`` from the loader, ``float32`` and normalised after augmentation.
        label: ``[B]`` class index, ``int64``; ``[B, K]`` class weights, ``float32``, after mixup or CutMix.
        index: ``[B]`` position of each image in its file, training or test, whatever part of it is used, ``int64``.
        view: ``[B]`` which augmented view of that image this is, ``int64``; 0 where images are not augmented.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    view: Tensor


class Outputs(NamedTuple):
    """What a network, or an ensemble of networks, says about a batch.

    Attributes:
        logits: ``[B, K]`` class scores before the softmax.
        features: tapped layer -> ``[B, C, H, W]`` or ``[B, D]``; empty where nothing is tapped.
        members: the outputs of each sub-student, sub-teacher or peer; empty for a single network.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = NO_FEATURES
    members: tuple[Outputs, ...] = ()
