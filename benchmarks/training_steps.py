"""Steps of a bare training loop; `allocation.py` starts it as a process of its own, twice."""

from __future__ import annotations

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from measuring import Turns

from kdlab.allocation import keep_freed_memory
from kdlab.models import MNISTNarrowConv

BATCH_SIZE = 256


def main(keep: bool, steps: int) -> None:
    """Train for some steps in each turn, and answer with the rate and the page faults."""
    turns = Turns()
    if keep and not keep_freed_memory():
        raise SystemExit("keep_freed_memory does nothing here: it is for glibc")
    student = MNISTNarrowConv()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3, fused=True)
    image, label = torch.rand(BATCH_SIZE, 1, 28, 28), torch.randint(10, (BATCH_SIZE,))
    while turns.wait():
        faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(student(image), label).backward()
            optimizer.step()
        wall = time.perf_counter() - began
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        turns.answer(images_per_s=steps * BATCH_SIZE / wall, page_faults_per_step=faults / steps)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
