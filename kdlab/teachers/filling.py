"""A teacher that remembers is asked ahead of the training.

Shapes: B rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kdlab.teachers.base import Images, Teacher, TrainingImages
from kdlab.teachers.views import views_of
from kdlab.types import Batch


@torch.no_grad()
def ask_about(
    teacher: Teacher, images: TrainingImages, split: Images, rows: Tensor, batch_size: int, device: torch.device
) -> Iterator[int]:
    """Ask a teacher that remembers about rows, and yield after each batch how many it had.

    Args:
        teacher: on `device`.
        images: the data.
        split: their training images, where views shall be made: in the memory of the device, if they fit there.
        rows: numbers ``[N]`` among `kdlab.teachers.views.asked_rows`.
        batch_size: B at most.
        device: that answers.
    """
    for part in torch.split(rows, batch_size) if len(rows) else ():
        batch = views_of(images, part.to(split.images.device), split)
        teacher.teach(Batch(*(tensor.to(device) for tensor in batch)))
        yield len(part)
