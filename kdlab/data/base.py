"""`ImageData`: from a data set in memory to the batches that a network reads.

Its splits and loaders are here; what networks see of a batch is in `kdlab.data.views`.

Shapes: N images in a split, C channels, H x W pixels.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from kdlab.data.augment import Augmentation
from kdlab.data.checks import check_answer, check_arguments, check_batch_size, check_declared
from kdlab.data.files import ExpectedSplit
from kdlab.data.loader import BatchLoader
from kdlab.data.mixing import Mixing
from kdlab.data.normalise import Normalize
from kdlab.data.split import NoiseKind, Split, divide
from kdlab.data.views import Views
from kdlab.errors import IntegrityError

Part = Literal["train", "test"]
_RESIDENT_SHARE = 0.5  # of the accelerator's free memory that a split may take; the rest is for the networks


class ImageData(Views, ABC):
    """Base of all data sets: splits, loaders, augmentation and normalisation.

    A data set fills in `read` and the attributes, of the class or before ``super().__init__``. What a network needs to
    know is there before `setup`: ``num_classes``, ``in_channels``, ``image_size``, ``image_shape``, ``class_names``,
    ``num_views``. What must be downloaded or converted first belongs into ``prepare_data``: Lightning calls it in one
    process of each machine, so attributes that it sets are missing in the others.

    The validation images are held out from the training split, stratified, chosen by ``split_seed`` and never by the
    seed of the run: all runs of a study, and the teacher, must see the same ones, or a teacher would have been trained
    on images that its student is validated on. Label noise and few labels concern what is left to train on.

    Args:
        data_dir: Folder that holds one folder per data set.
        batch_size: Training images per batch and process.
        eval_batch_size: Validation and test images per batch and process.
        val_fraction: Share of the training split that is held out to validate on, 0 ... 1 (exclusive). 0 trains on
            everything: there is no validation and the last epoch counts.
        train_per_class: Train on this many images of each class only; null for all.
        label_noise: Share of training images that get a wrong label, 0 ... 1.
        label_noise_kind: ``uniform``: any other class. ``minus_one``: the class before, so that 4 becomes 3.
        augmentation: Random views of the training images, for instance RandomCropFlip; null for none.
        mixing: Mixup or CutMix of the training images; null for none.
        seed: Of the order, the views and the mixing: what may differ between runs.
        split_seed: Of the held-out images, the few labels and the noise: what must not differ between runs.
        mean: Mean of each channel in units of [0, 1]; null for the data set's own.
        std: Standard deviation of each channel in units of [0, 1]; null for the data set's own.
        resident: Keep the images in the accelerator's memory where they fit into half of what is free.

    Raises:
        UsageError: an argument is out of its range.
    """

    num_classes: int
    in_channels: int
    image_size: int  # height = width, pixels
    class_names: tuple[str, ...]
    num_train_images: int  # in the whole training file: Batch.index of training and validation is below it
    num_test_images: int
    default_mean: tuple[float, ...]
    default_std: tuple[float, ...]

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 128,
        eval_batch_size: int = 512,
        val_fraction: float = 0.1,
        train_per_class: int | None = None,
        label_noise: float = 0.0,
        label_noise_kind: NoiseKind = "uniform",
        augmentation: Augmentation | None = None,
        mixing: Mixing | None = None,
        seed: int = 0,
        split_seed: int = 0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        resident: bool = True,
    ) -> None:
        super().__init__()
        check_declared(self)
        self.data_dir = data_dir
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_fraction = val_fraction
        self.train_per_class = train_per_class
        self.label_noise = label_noise
        self.label_noise_kind: NoiseKind = label_noise_kind
        self.augmentation = augmentation
        self.mixing = mixing
        self.seed = seed
        self.split_seed = split_seed
        self.mean = self.default_mean if mean is None else tuple(mean)
        self.std = self.default_std if std is None else tuple(std)
        self.resident = resident
        check_arguments(self)
        self._normalize = Normalize(self.mean, self.std)
        self._splits: dict[str, Split] = {}
        self._resident_splits: dict[str, Split] = {}
        self._train_loader: BatchLoader | None = None
        self._fingerprint: str | None = None

    @abstractmethod
    def read(self, part: Part) -> tuple[Tensor, Tensor, str]:
        """Read one part of the data set as it was published.

        Returns:
            Images ``[N, C, H, W]`` ``uint8``, labels ``[N]`` ``int64``, and the SHA-256 of both.

        Raises:
            IntegrityError: the data are missing or damaged.
        """

    # What it is

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        return (self.in_channels, self.image_size, self.image_size)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the whole training file, whatever part of it is trained on."""
        if self._fingerprint is None:
            self.setup("fit")
        assert self._fingerprint is not None
        return self._fingerprint

    def describe(self) -> dict[str, Any]:
        """Return the protocol of this data set, as `result.json` records it."""
        train = self.train_split
        return {
            "name": type(self).__name__,
            "n_train": len(train),
            "n_val": len(self.val_split),
            "n_test": self.num_test_images,
            "val_fraction": self.val_fraction,
            "split_seed": self.split_seed,
            "train_per_class": self.train_per_class,
            "label_noise": self.label_noise,
            "label_noise_kind": self.label_noise_kind if self.label_noise else None,
            "n_noisy_labels": len(train.noisy),
            "augmentation": _name(self.augmentation),
            "mixing": _name(self.mixing),
            "num_views": self.num_views,
            "batch_size": self.batch_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "fingerprint": self.fingerprint(),
        }

    # Its splits

    @property
    def train_split(self) -> Split:
        """The images to train on, with their possibly wrong labels."""
        self.setup("fit")
        return self._splits["train"]

    @property
    def val_split(self) -> Split:
        """The held-out images; none where ``val_fraction`` is 0."""
        self.setup("fit")
        return self._splits["val"]

    @property
    def test_split(self) -> Split:
        """The test images."""
        self.setup("test")
        return self._splits["test"]

    def setup(self, stage: str | None = None) -> None:
        """Read what ``stage`` needs, unless it is there already.

        Args:
            stage: ``fit``, ``validate``, ``test``, ``predict`` (of the test images), or None for everything.

        Raises:
            IntegrityError: the data are missing or damaged.
            UsageError: the data cannot be divided as the arguments say.
        """
        if stage in ("fit", "validate", None) and "train" not in self._splits:
            images, labels, self._fingerprint = self._read("train")
            self._splits["train"], self._splits["val"] = divide(
                Split.whole(images, labels),
                val_fraction=self.val_fraction,
                train_per_class=self.train_per_class,
                label_noise=self.label_noise,
                label_noise_kind=self.label_noise_kind,
                num_classes=self.num_classes,
                split_seed=self.split_seed,
            )
        if stage == "fit" and self.trainer is not None:  # before the run writes anything
            check_batch_size(self, len(self._splits["train"]))
            self.setup("test")  # what is wrong with it should not come out after the training
        if stage in ("test", "predict", None) and "test" not in self._splits:
            images, labels, _ = self._read("test")
            self._splits["test"] = Split.whole(images, labels)

    def _read(self, part: Part) -> tuple[Tensor, Tensor, str]:
        """What `read` returns, which in a data set of one's own may be anything."""
        answer = self.read(part)
        check_answer(self, part, answer)
        images, labels, digest = answer
        fix = "mend read, or the class's num_images, in_channels, image_size or num_classes"
        self._expected(part).check(images, labels, f"{type(self).__name__}.{part}", fix)
        return images, labels, digest

    def _expected(self, part: Part) -> ExpectedSplit:
        count = self.num_train_images if part == "train" else self.num_test_images
        return ExpectedSplit(count, self.image_shape, self.num_classes)

    def state_dict(self) -> dict[str, str]:
        """Say of a resume point on which images its run is trained."""
        return {"fingerprint": self.fingerprint()}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """See that a run is continued on the images that it was started with.

        Raises:
            IntegrityError: if they have changed.
        """
        if state_dict["fingerprint"] != self.fingerprint():
            raise IntegrityError(
                "the run was started with other training images: they have changed since. Bring them back to continue, "
                "or leave --ckpt_path out to start a new run"
            )

    def teardown(self, stage: str | None = None) -> None:
        """Let the splits in the accelerator's memory go, as far as no loader holds them."""
        self._resident_splits.clear()

    # Its batches

    def train_dataloader(self) -> BatchLoader:
        """Return the loader of this process's share of the training images.

        Raises:
            UsageError: there are fewer images than one global batch.
        """
        loader = self._loader("train", self.batch_size, training=True)
        check_batch_size(self, len(self._splits["train"]))
        self._train_loader = loader
        return loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the loader of the held-out images; an empty list, which Lightning skips, where there are none."""
        if len(self.val_split):
            return self._loader("val", self.eval_batch_size)
        # Lightning asks whether an empty list was intended; val_fraction 0 says that it was.
        warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
        return []

    def plain_train_dataloader(self) -> BatchLoader:
        """Return the loader of the training images in the order of the file, to look at them rather than to train."""
        return self._loader("train", self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        """Return the loader of the test images."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> BatchLoader:
        """Return the loader of the test images."""
        return self.test_dataloader()

    def _loader(self, name: str, batch_size: int, *, training: bool = False) -> BatchLoader:
        self.setup("test" if name == "test" else "fit")
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        views = 1 if self.augmentation is None else self.augmentation.num_views
        method = getattr(self.trainer, "lightning_module", None)
        return BatchLoader(
            self._where_it_fits(name),
            batch_size,
            training=training,
            seed=self.seed,
            num_views=views,
            rank=rank,
            world_size=world_size,
            reshuffle=not getattr(self.trainer, "overfit_batches", 0),  # an attribute that Trainer does not declare
            streams=getattr(method, "streams", 1) if training else 1,
        )

    def _where_it_fits(self, name: str) -> Split:
        """Return the split in the accelerator's memory, moved there once, or in main memory."""
        split = self._splits[name]
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if not self.resident or device.type != "cuda":
            return split
        if name not in self._resident_splits:
            if split.size_bytes > _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
                return split
            self._resident_splits[name] = split.to(device)
        return self._resident_splits[name]


def _name(part: Augmentation | Mixing | None) -> str | None:
    return None if part is None else repr(part)
