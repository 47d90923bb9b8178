"""What can be wrong with a data set of one's own, or with the arguments of any, named before it does harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from torch import Tensor

from kdlab.data.split import NoiseKind
from kdlab.errors import UsageError

if TYPE_CHECKING:
    from kdlab.data.base import ImageData, Part

DECLARED = (
    "num_classes", "in_channels", "image_size", "class_names", "num_train_images", "num_test_images", "default_mean",
    "default_std",
)  # fmt: skip


def check_declared(data: ImageData) -> None:
    """See that a data set says what networks and loaders must know of it.

    Raises:
        UsageError: with all that is missing, or if there is not one name for each class.
    """
    name, missing = type(data).__name__, [attribute for attribute in DECLARED if not hasattr(data, attribute)]
    if missing:
        raise UsageError(
            f"{name} does not say its {', '.join(missing)}; set that in the class, or before super().__init__()"
        )
    if len(data.class_names) != data.num_classes:
        raise UsageError(
            f"{name} has {data.num_classes} classes but {len(data.class_names)} class_names; give one name per class"
        )


def check_arguments(data: ImageData) -> None:
    """See that every argument is in its range.

    Raises:
        UsageError: for the first one that is not.
    """
    for name in ("batch_size", "eval_batch_size", "train_per_class"):
        value = getattr(data, name)
        if value is not None and value < 1:
            raise UsageError(f"data.{name} is {value}; give 1 or a larger whole number")
    if not 0 <= data.split_seed < 2**32:
        raise UsageError(f"data.split_seed is {data.split_seed}; give an integer of 0 or more, below 2^32")
    if not 0 <= data.val_fraction < 1:
        raise UsageError(f"data.val_fraction is {data.val_fraction}; give a share from 0 up to, but not including, 1")
    if not 0 <= data.label_noise <= 1:
        raise UsageError(f"data.label_noise is {data.label_noise}; give a share from 0 to 1")
    if data.label_noise_kind not in get_args(NoiseKind):
        raise UsageError(f"data.label_noise_kind is {data.label_noise_kind!r}; give uniform or minus_one")
    for name, values in (("mean", data.mean), ("std", data.std)):
        if len(values) != data.in_channels:
            raise UsageError(
                f"data.{name} has {len(values)} value(s) but {type(data).__name__} images have "
                f"{data.in_channels} channel(s); give one per channel"
            )
    if min(data.std) <= 0:
        raise UsageError(f"data.std is {data.std}; give positive numbers, they divide the pixels")


def check_answer(data: ImageData, part: Part, answer: object) -> None:
    """See that `ImageData.read` returned what it must; shapes and labels are looked at later.

    Raises:
        UsageError: if that is not two tensors and a digest.
    """
    items = answer if isinstance(answer, tuple | list) else (answer,)
    if len(items) == 3 and all(map(isinstance, items, (Tensor, Tensor, str))):
        return
    kinds = ", ".join(type(item).__name__ for item in items)
    raise UsageError(
        f"{type(data).__name__}.read({part!r}) returned {kinds}, expected images [N, C, H, W] and labels [N] as "
        "tensors and the SHA-256 of both as text; mend read"
    )


def check_batch_size(data: ImageData, images: int) -> None:
    """See that the training images fill one batch of each process.

    Args:
        data: with the Trainer that is to train on it, if there is one.
        images: to train on.

    Raises:
        UsageError: if there are fewer, or none.
    """
    world_size = 1 if data.trainer is None else data.trainer.world_size
    if not images:
        raise UsageError(f"data.val_fraction {data.val_fraction:g} leaves no image to train on; lower it")
    if data.batch_size * world_size > images:
        raise UsageError(
            f"data.batch_size is {data.batch_size} on {world_size} process(es) but there are only "
            f"{images} training images (val_fraction {data.val_fraction:g}, train_per_class "
            f"{data.train_per_class or 'all'}); give at most {images // world_size}"
        )
