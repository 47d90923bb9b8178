"""What each of two processes computes in test_distributed.py."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from kdlab.losses import (
    DIST,
    MultiLevelKD,
    PKTLoss,
    RelationalLoss,
    SimilarityLoss,
    SoftTargets,
)
from kdlab.losses.distributed import gather_batch

# terms that relate samples: the parts may be of any size
RELATIONAL = {
    "SimilarityLoss": SimilarityLoss(),
    "RelationalLoss": RelationalLoss(),
    "PKTLoss": PKTLoss(),
    "DIST, classes": DIST(beta=0.0),
    "MultiLevelKD, pairs": MultiLevelKD(instance_weight=0.0),
}
# losses that are means over samples, wholly or in part: DistributedDataParallel averages parts of equal size
MEANS = {
    "DIST": DIST(),
    "MultiLevelKD": MultiLevelKD(),
    "SoftTargets": SoftTargets(),
}
SAMPLES, CLASSES = 8, 5
# samples of each of two ranks
PARTS = {
    "halves": (range(4), range(4, 8)),
    "interleaved": (range(0, 8, 2), range(1, 8, 2)),
    "unequal": (range(5), range(5, 8)),
    "one and seven": (range(1), range(1, 8)),
}


# rows to gather from each rank
SIZES = ((2, 3), (3, 0), (0, 2))


def draw(*shape: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network() -> nn.Module:
    layer = nn.Linear(6, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(draw(CLASSES, 6, seed=1))
        layer.bias.copy_(draw(CLASSES, seed=2))
    return layer


def step(model: nn.Module, loss: nn.Module, samples: range) -> dict[str, torch.Tensor]:
    """Value and gradients of a loss of some of the samples."""
    image, teacher = draw(SAMPLES, 6, seed=3), draw(SAMPLES, CLASSES, seed=4)
    model.zero_grad()
    value = loss(model(image[list(samples)]), teacher[list(samples)])
    value.backward()
    return {"loss": value.detach()} | {
        name.removeprefix("module."): parameter.grad.clone() for name, parameter in model.named_parameters()
    }


def gather_and_weigh(rank: int, sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Gather rows; the loss of rank r weighs the gathered rows by 10^r."""
    own = (torch.arange(2 * sizes[rank], dtype=torch.float64).reshape(-1, 2) + 100 * rank).requires_grad_()
    gathered = gather_batch(own)
    rows = torch.arange(1.0, len(gathered) + 1, dtype=torch.float64)
    (10**rank * gathered * rows[:, None]).sum().backward()
    return {"gathered": gathered.detach(), "gradient": own.grad}


def compute_all(folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results: dict[str, dict[str, torch.Tensor]] = {}
    model = nn.parallel.DistributedDataParallel(network())
    for how, parts in PARTS.items():
        losses = RELATIONAL | MEANS if len(parts[0]) == len(parts[1]) else RELATIONAL
        for name, loss in losses.items():
            results[f"{name}: {how}"] = step(model, loss, parts[rank])
    for sizes in SIZES:
        results[f"gather {sizes}"] = gather_and_weigh(rank, sizes)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
