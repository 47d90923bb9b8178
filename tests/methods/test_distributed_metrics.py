"""Several processes measure what one does, on splits of any size: nothing padded, nothing twice, nobody waits."""

import os
import warnings

import lightning.pytorch as pl
import pytest
import torch

from kdlab.data import Digits
from kdlab.methods import LogitMatching
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher

SIZES = (*range(1, 10), 33, 37)
BATCH = 4  # per process: several batches, the last of which some processes have and others do not


class FewDigits(Digits):
    """The first images of either part."""

    def __init__(self, images):
        super().__init__(eval_batch_size=BATCH)
        self.whole = Digits()
        self.num_train_images = self.num_test_images = images

    def read(self, part):
        images, labels, digest = self.whole.read(part)
        return images[: self.num_test_images], labels[: self.num_test_images], digest


def measure_all(folder, world_size):
    """What each process of a job does, or the only one: test the same network on splits of all sizes."""
    warnings.simplefilter("ignore")  # Lightning's advice
    torch.manual_seed(1)
    method = LogitMatching(FrozenTeacher(DigitsConv(widths=(8, 8, 8))), student=DigitsConv(widths=(8, 8, 8)))
    measured = {}
    for size in SIZES:
        trainer = pl.Trainer(
            accelerator="cpu", devices=world_size, strategy="auto" if world_size == 1 else "ddp", logger=False,
            enable_progress_bar=False, enable_checkpointing=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.test(method, datamodule=FewDigits(size), verbose=False)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        measured[size] = {"report": method.test_report, "metrics": metrics}
    torch.save(measured, folder / f"{world_size}-{os.environ.get('LOCAL_RANK', '0')}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(scope="module")
def one(folder):
    """The report and the metrics of one process, by size."""
    measure_all(folder, 1)
    return torch.load(folder / "1-0.pt", weights_only=True)


@pytest.fixture(scope="module")
def several(folder, ranks):
    """`several(world_size)`: those of each process of a job."""
    measured = {}

    def of(world_size):
        if world_size not in measured:
            assert ranks(world_size, measure_all, folder, world_size) == [0] * world_size
            files = [folder / f"{world_size}-{rank}.pt" for rank in range(world_size)]
            measured[world_size] = [torch.load(file, weights_only=True) for file in files]
        return measured[world_size]

    return of


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.faults)])
def test_the_confusion_matrix_and_all_metrics_are_those_of_one_process(one, several, world_size, size):
    expected = one[size]
    assert sum(map(sum, expected["report"]["confusion_matrix"])) == size
    assert len(expected["metrics"]) == 14
    for rank in several(world_size):
        assert rank[size]["report"] == expected["report"]
        assert rank[size]["metrics"] == pytest.approx(expected["metrics"], rel=1e-6, nan_ok=True)
