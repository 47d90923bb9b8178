"""Batches straight out of memory: no worker processes, no Python per image, and any batch can be found again.

One process: batch g of epoch e is ``permutation(N, seed, e)[g * B : (g + 1) * B]``. W processes: the *global* batch g
has B * W images of the same permutation and rank r takes ``[r::W]`` of it.

Shapes: N images in the split, B images per batch and process, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdlab.data.counters import Stream, below, counter_bits, nonnegative, permutation
from kdlab.data.split import Split
from kdlab.errors import UsageError
from kdlab.types import SEED_STRIDE, Batch


class BatchLoader:
    """Iterates over one split in batches of ``uint8`` images, on the device where the split lives.

    Training: every epoch has its own order, and every image its own view in it. The last, smaller global batch is
    kept, cut to a multiple of W, so that all ranks have equally many images in every step and the mean over ranks
    that DDP takes of the gradients is the exact mean over the batch. What is cut (at most W - 1 images; none in a
    single process) are other images in each epoch. A last batch of a single image per process is left out as well:
    batch normalisation cannot train on it.

    Evaluation: the order of the file, nothing padded, nothing twice. All ranks yield equally many batches; a rank
    that has no images left yields a batch with B = 0, so collective operations never wait for a missing rank.

    It follows Lightning's protocol: ``len``, an iterator that reads the epoch only when the first batch is asked for
    (Lightning calls ``iter`` before ``set_epoch``), ``sampler.set_epoch``, and a state with which a run that was
    stopped in mid-epoch goes on with the very next batch.

    Args:
        split: The images.
        batch_size: Images per batch and process.
        training: Shuffle and draw views; otherwise evaluation as described above.
        seed: Key of order and views.
        num_views: How many views of each image the augmentation knows; None for endlessly many (63 random bits).
        rank: Which process this is, 0 ... world_size - 1.
        world_size: How many processes share the split.
        reshuffle: Every epoch has its own order and views; otherwise all have those of epoch 0.
        streams: How many batches of different order and views are yielded one behind the other as one, B * streams
            images. Each is what a loader of one stream yields for another seed; the first for the seed itself.
    """

    batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        num_views: int | None = 1,
        rank: int = 0,
        world_size: int = 1,
        reshuffle: bool = True,
        streams: int = 1,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.training = training
        self.seed = seed
        self.num_views = num_views
        self.rank = rank
        self.world_size = world_size
        self.reshuffle = reshuffle
        self.streams = streams
        self.epoch = 0
        self._yielded = 0
        self._resume_at: tuple[int, int] | None = None  # (epoch, batch)

    def __len__(self) -> int:
        return -(-self.images_per_epoch // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.epoch, 0
        if self._resume_at is not None:
            start = self._resume_at[1] if self._resume_at[0] == epoch else 0
            self._resume_at = None
        positions, views = self._draw(epoch)
        labels, index = self.split.labels[positions], self.split.index[positions]
        for number in range(start, len(self)):
            self._yielded = number + 1
            here = slice(number * self.batch_size, (number + 1) * self.batch_size)
            chosen = positions[:, here].reshape(-1)
            rest = (t[:, here].reshape(-1) for t in (labels, index, views))
            yield Batch(self.split.images.index_select(0, chosen), *rest)

    def draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return ``index`` and ``view`` of all images that this process sees in an epoch, ``[streams, n]`` each."""
        positions, views = self._draw(epoch)
        return self.split.index[positions], views

    @property
    def images_per_epoch(self) -> int:
        """Images of one epoch, over all processes."""
        last = len(self.split) % (self.batch_size * self.world_size)
        if not self.training or last == 0:
            return len(self.split)
        kept = last - last % self.world_size
        if kept == self.world_size and self.batch_size > 1:
            kept = 0
        return len(self.split) - last + kept

    def images_in(self, first: int, stop: int) -> int:
        """Return how many images the batches `first` to `stop` (exclusive) of an epoch have, over all processes."""
        each = self.batch_size * self.world_size
        return min(stop * each, self.images_per_epoch) - first * each

    @property
    def sampler(self) -> BatchLoader:
        """The object that Lightning tells the epoch: the loader itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the views of the next iteration."""
        if epoch != self.epoch:
            self.epoch, self._yielded = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return how far the current epoch is, and what decides which batches it has."""
        return {"epoch": self.epoch, "yielded": self._yielded, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration of the saved epoch start behind the batches that were yielded.

        Raises:
            UsageError: the state lies inside an epoch that would have other batches now.
        """
        batches = -(-state["images_per_epoch"] // (state["batch_size"] * state["world_size"]))
        if 0 < state["yielded"] < batches:
            for name, value in self._identity().items():
                if state[name] != value:
                    raise UsageError(
                        f"the checkpoint was written in the middle of an epoch with {name} {state[name]}, now it is "
                        f"{value}; resume with {name} {state[name]}"
                    )
        self.epoch, self._yielded = state["epoch"], state["yielded"]
        self._resume_at = (self.epoch, self._yielded)

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "images_per_epoch": self.images_per_epoch,
            "streams": self.streams,
        }

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return positions in the split and views, in the order of the epoch, ``[streams, n]`` each."""
        drawn = epoch if self.reshuffle else 0
        seeds = [self.seed + stream * SEED_STRIDE for stream in range(self.streams)]
        positions = torch.stack([self._positions(seed, drawn) for seed in seeds])
        index = self.split.index[positions]
        views = torch.stack([self._views(own, seed, drawn) for own, seed in zip(index, seeds, strict=True)])
        return positions, views

    def _positions(self, seed: int, epoch: int) -> Tensor:
        """Return this rank's positions in the split, in the order of the epoch."""
        device = self.split.images.device
        if self.training:
            order = permutation(len(self.split), seed, epoch, device=device)[: self.images_per_epoch]
        else:
            order = torch.arange(len(self.split), device=device)
        # A global batch holds a multiple of W images, so its [r::W] is a piece of the whole order's [r::W].
        return order[self.rank :: self.world_size].contiguous()

    def _views(self, index: Tensor, seed: int, epoch: int) -> Tensor:
        """Return which view to show of each image (file positions ``index``) in this epoch."""
        if not self.training or self.num_views == 1:
            return torch.zeros_like(index)
        bits = counter_bits(seed, epoch, index, Stream.VIEW)
        return nonnegative(bits) if self.num_views is None else below(bits, self.num_views)
