"""Epochs of RepDistiller through its own training loop; `epoch.py` starts it as a process of its own.

Its resnet56 -> resnet20, its `train_distill` and DistillKL with the options of its KD script (T = 4, label weight 0.1,
KD weight 0.9), its transforms, a DataLoader with workers, SGD, cuDNN's benchmark mode, batches that are not pinned;
without the validation. From a checkout that the user names: nothing of it lies here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace

import torch
from measuring import Device, Turns, with_statistics
from plain_loop import PILImages, read_images
from torch import nn
from torch.utils.data import DataLoader

PRINT_EVERY = 100  # steps, its default


class WithIndex(PILImages):
    """Images as its CIFAR100Instance gives them: with their index."""

    def __getitem__(self, index: int):
        return (*super().__getitem__(index), index)


def main(checkout: str, images: str, batch_size: int, parameters: list[int], device: str, workers: int) -> None:
    """Train an epoch in each turn, and answer with its images per second."""
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # its loop takes a GPU wherever it finds one
    turns, where = Turns(), Device(device)
    torch.backends.cudnn.benchmark = True
    sys.path.insert(0, checkout)
    from distiller_zoo import DistillKL
    from helper.loops import train_distill
    from models import model_dict

    read = read_images(images)
    data = WithIndex(read.pixels, read.labels)
    torch.manual_seed(0)
    student = model_dict["resnet20"](num_classes=100).to(where.torch)
    some = torch.stack([data[index][0] for index in range(64)]).to(where.torch)
    teacher = with_statistics(model_dict["resnet56"](num_classes=100).to(where.torch), some)
    assert [sum(p.numel() for p in network.parameters()) for network in (student, teacher)] == parameters
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=workers)
    criteria = [nn.CrossEntropyLoss(), DistillKL(4), DistillKL(4)]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    options = Namespace(distill="kd", gamma=0.1, alpha=0.9, beta=0, print_freq=PRINT_EVERY)
    epoch = 1
    while turns.wait():
        began = time.perf_counter()
        train_distill(epoch, loader, [student, teacher], criteria, optimizer, options)
        where.synchronize()
        turns.answer(images_per_s=len(data) / (time.perf_counter() - began), settings=where.settings())
        epoch += 1


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
