"""What networks see of the images that a loader yields: the one place that touches pixels.

The loader yields ``uint8`` images. After the transfer to the device they are augmented (training only), normalised, and
mixed (training only), the whole batch at once. In training teacher and student see the same view.

Shapes: B images in the batch, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule

from kdlab.data.augment import Augmentation
from kdlab.data.counters import Stream, counter_bits
from kdlab.data.loader import BatchLoader
from kdlab.data.mixing import Mixing
from kdlab.data.normalise import Normalize
from kdlab.types import SEED_STRIDE, Batch


class Views(LightningDataModule):
    """Data whose batches are augmented, normalised and mixed on the device.

    Attributes:
        num_classes: K.
        augmentation: of training images; None for none.
        mixing: of training images; None for none.
        seed: of the mixing.
    """

    num_classes: int
    augmentation: Augmentation | None
    mixing: Mixing | None
    seed: int
    _normalize: Normalize
    _train_loader: BatchLoader | None

    @property
    def num_views(self) -> int | None:
        """How many different inputs one training image can become; None where they cannot be counted."""
        if self.mixing is not None:
            return None
        return 1 if self.augmentation is None else self.augmentation.num_views

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, unless it lies where the network is: Lightning would go through it each time."""
        if batch.image.device == device:
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn what the loader yielded into what networks read, on the device."""
        training = self.trainer is not None and self.trainer.training
        return self.training_view(batch) if training else self.plain_view(batch)

    def training_view(self, batch: Batch) -> Batch:
        """Augment, normalise and mix a batch of the training loader.

        Args:
            batch: ``image`` ``[B, C, H, W]`` ``uint8``, on the device.

        Returns:
            ``image`` ``[B, C, H, W]`` ``float32``; ``label`` ``[B, K]`` ``float32`` where images are mixed.
        """
        image = batch.image
        if self.augmentation is not None:
            image = self.augmentation.to(image.device)(image, batch.view)
        seen = self.plain_view(batch._replace(image=image))
        if self.mixing is None:
            return seen
        epoch, streams = (
            (0, 1) if self._train_loader is None else (self._train_loader.epoch, self._train_loader.streams)
        )
        mixing = self.mixing.to(image.device)
        mixed = []
        for stream, part in enumerate(zip(*(tensor.chunk(streams) for tensor in seen), strict=True)):
            own = Batch(*part)  # each stream is mixed in itself, as it would be alone
            bits = counter_bits(self.seed + stream * SEED_STRIDE, epoch, own.index[:1], Stream.MIXING)
            mixed.append(mixing(own.image, own.label, self.num_classes, bits))
        images, labels = zip(*mixed, strict=True)
        return seen._replace(image=torch.cat(images), label=torch.cat(labels))

    def plain_view(self, batch: Batch) -> Batch:
        """Normalise a batch of ``uint8`` images, and do nothing else to it."""
        if self._normalize.shift.device != batch.image.device:
            self._normalize.to(batch.image.device)
        return batch._replace(image=self._normalize(batch.image))
