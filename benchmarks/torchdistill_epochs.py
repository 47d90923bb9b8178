"""Epochs of torchdistill through its own distillation box; `epoch.py` starts it as a process of its own.

ResNet56 -> ResNet20 of torchdistill, its KDLoss, the transforms of its CIFAR-100 configs, a DataLoader with workers,
its MetricLogger. Written after its examples/torchvision/image_classification.py, without the validation: cuDNN's
benchmark mode, batches that are not pinned.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from measuring import Device, Turns, with_statistics
from plain_loop import PILImages, read_images
from torch import nn
from torch.utils.data import RandomSampler
from torchdistill.core.distillation import get_distillation_box
from torchdistill.misc.log import MetricLogger, SmoothedValue, set_basic_log_config
from torchdistill.models.classification.resnet import resnet20, resnet56

LOG_EVERY = 100  # steps, as its configs for CIFAR-100
ITSELF = "."  # torchdistill's name for the whole network


def train_config(batch_size: int, epochs: int, workers: int) -> dict[str, Any]:
    """Return what its YAML file would say."""
    matching = {"student_module_path": ITSELF, "student_module_io": "output", "teacher_module_path": ITSELF,
                "teacher_module_io": "output", "temperature": 4.0, "alpha": 0.1, "reduction": "batchmean"}  # fmt: skip
    return {
        "num_epochs": epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": batch_size, "num_workers": workers},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
        "scheduler": {"key": "MultiStepLR", "kwargs": {"milestones": [150, 180, 210], "gamma": 0.1}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": matching}, "weight": 1.0}}},
        },
    }


def train_epoch(box, epoch: int, device: torch.device) -> None:
    """Train one epoch, with its logging."""
    meters = MetricLogger(delimiter="  ")
    meters.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    meters.add_meter("img/s", SmoothedValue(window_size=10, fmt="{value}"))
    box.pre_epoch_process(epoch=epoch)
    for image, label, extra in meters.log_every(box.train_data_loader, LOG_EVERY, f"Epoch: [{epoch}]"):
        began = time.time()
        loss = box.forward_process(image.to(device), label.to(device), extra)
        box.post_forward_process(loss=loss)
        meters.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        meters.meters["img/s"].update(len(image) / (time.time() - began))
        if not torch.isfinite(loss):
            raise ValueError(f"loss is {loss}")
    box.post_epoch_process()


def networks(images: PILImages) -> tuple[nn.Module, nn.Module]:
    """Return student and teacher, with random weights; the teacher in eval mode."""
    torch.manual_seed(0)
    some = torch.stack([images[index][0] for index in range(64)])
    return resnet20(num_classes=100), with_statistics(resnet56(num_classes=100), some)


def main(
    images: str, batch_size: int, epochs: int, parameters: list[int], eval_teacher: bool, device: str, workers: int
) -> None:
    """Train an epoch in each turn, and answer with its images per second."""
    turns, where = Turns(), Device(device)
    torch.backends.cudnn.benchmark = True
    set_basic_log_config()
    data = read_images(images)
    student, teacher = (network.to(where.torch) for network in networks(data))
    assert [sum(p.numel() for p in network.parameters()) for network in (student, teacher)] == parameters
    teacher.train(not eval_teacher)
    config = train_config(batch_size, epochs, workers)
    box = get_distillation_box(teacher, student, {"train": data}, config, where.torch, None, False, 1)
    epoch = 0
    while turns.wait():
        began = time.perf_counter()
        train_epoch(box, epoch, where.torch)
        where.synchronize()
        turns.answer(images_per_s=len(data) / (time.perf_counter() - began), settings=where.settings())
        epoch += 1


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
