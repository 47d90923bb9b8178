"""Distillation as the well-known repositories write it; `kd_step.py` and `epoch.py` start it as a process of its own.

PIL transforms in a torchvision-like Dataset, a DataLoader with workers, float32, the teacher in eval mode under
no_grad, cross-entropy + T^2 KL, SGD, and `loss.item()` for the meter; for a GPU pinned batches, copied without waiting,
and cuDNN's benchmark mode. Of kdlab it has the two networks and nothing else; it does not change how memory is
allocated either.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from measuring import Device, Turns, steps_per_s, with_statistics
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdlab import models

TEMPERATURE = 4.0
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)  # of CIFAR-100
SETTLING_S = 0.2  # for the workers to fill their queues, which shall not disturb the next one's turn


class PILImages(Dataset):
    """What torchvision.datasets.CIFAR100 does with its array: one PIL image, transformed, per index.

    Args:
        pixels: ``[N, H, W, C]`` ``uint8``.
        labels: of each image.
        mean: of each channel.
        std: of each channel.
    """

    def __init__(self, pixels: np.ndarray, labels: list[int], mean=MEAN, std=STD) -> None:
        self.pixels = pixels
        self.labels = labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def read_images(file: str | None) -> PILImages:
    """Return the images of a safetensors file with ``images`` ``[N, C, H, W]`` and ``labels``; noise without one."""
    if file is None:
        pixels = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8)
        return PILImages(pixels, [index % 100 for index in range(len(pixels))])
    tensors = load_file(Path(file))
    return PILImages(np.ascontiguousarray(tensors["images"].transpose(0, 2, 3, 1)), tensors["labels"].tolist())


def loss_of(student: nn.Module, teacher: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """Return cross-entropy + T^2 KL(teacher || student)."""
    with torch.no_grad():
        target = F.softmax(teacher(image) / TEMPERATURE, dim=1)
    logits = student(image)
    divergence = F.kl_div(F.log_softmax(logits / TEMPERATURE, dim=1), target, reduction="batchmean")
    return F.cross_entropy(logits, label) + TEMPERATURE**2 * divergence


def endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def main(
    images: str | None, batch_size: int, threads: int, pair: tuple[str, str], seconds: float | None, device: str,
    workers: int,
) -> None:  # fmt: skip
    """Train in each turn, and answer with the images per second.

    Args:
        images: file of the images; None for noise.
        batch_size: of the loader.
        threads: of PyTorch.
        pair: student and teacher, classes of `kdlab.models`.
        seconds: of a turn, after a step that does not count; None for an epoch.
        device: cpu or cuda.
        workers: of the loader.
    """
    turns, where = Turns(), Device(device)
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    data = read_images(images)
    loader = DataLoader(
        data, batch_size, shuffle=True, num_workers=workers, drop_last=seconds is not None, pin_memory=where.pins
    )
    batches = endless(loader)
    student, teacher = (getattr(models, name)(num_classes=100).to(where.torch) for name in pair)
    student.train()
    some = torch.stack([data[index][0] for index in range(64)]).to(where.torch)
    with_statistics(teacher, some)
    optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    meter: list[float] = []

    def step() -> None:
        image, label = (each.to(where.torch, non_blocking=True) for each in next(batches))
        loss = loss_of(student, teacher, image, label)
        meter.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    while turns.wait():
        if seconds is not None:
            rate = batch_size * steps_per_s(step, seconds, where)
        else:
            began = time.perf_counter()
            for _ in range(len(loader)):
                step()
            where.synchronize()
            rate = len(data) / (time.perf_counter() - began)
        if not math.isfinite(meter[-1]):
            raise ValueError(f"the loss is {meter[-1]}")
        time.sleep(SETTLING_S)
        turns.answer(images_per_s=rate, settings=where.settings())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
