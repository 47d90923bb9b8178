"""What all tests share: one thread, and 64 real digits as the batch that a network sees."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# PyTorch is imported where it is used: the process that only hands out the tests can start them ten seconds earlier
if TYPE_CHECKING:
    import lightning.pytorch as pl

    from kdlab.types import Batch

UNPACK = Path(__file__).parents[2] / "shared" / "data" / "unpack.py"

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no "GPU available: False" for each Trainer


def pytest_configure(config: pytest.Config) -> None:
    """Start as the command line does, Lightning before everything else; only in processes that run tests."""
    hands_out = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if not hands_out:
        import lightning.pytorch  # noqa: F401
        import torch

        from kdlab.allocation import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(1)  # from the first import of a test on: threads do not survive a fork


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the pages: no other file takes as long, and started last it would leave all but one process idle."""
    items.sort(key=lambda item: item.path.name != "test_pages.py")


@pytest.fixture(autouse=True)
def same_random_numbers() -> Iterator[None]:
    """Each test starts from the same generator state and leaves none of its own, in whatever order tests run."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def quiet_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI warns when it is given arguments while the process has some of its own."""
    import torch

    monkeypatch.setattr(sys, "argv", ["kdlab"])
    # small networks gain nothing from more, on busy cores several wait for each other, and they do not survive a fork
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ranks() -> Callable[..., list[int | None]]:
    """`ranks(world_size, function, *arguments)`: call it in so many processes, the ranks of a job; their exit codes.

    The processes are forked, so what a fresh interpreter imports for ten seconds is there already.
    """
    return _ranks


@pytest.fixture(scope="session")
def two_ranks() -> Callable[..., list[int | None]]:
    """`two_ranks(function, *arguments)`: `ranks` with two of them."""
    return partial(_ranks, 2)


def _ranks(world_size: int, function: Callable[..., int | None], *arguments: object) -> list[int | None]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(number, port, function, arguments)) for number in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(280)
    for process in ranks:
        process.kill()  # one that hangs
    return [process.exitcode for process in ranks]


def _rank(number: int, port: int, function: Callable[..., int | None], arguments: tuple[object, ...]) -> None:
    import torch

    os.environ |= {"LOCAL_RANK": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    os._exit(function(*arguments) or 0)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """`tally(fault, times)`, the last line of a test: what it has survived; `benchmarks/faults.py` adds it up."""
    return lambda fault, times: record_property(f"fault: {fault}", times)


@pytest.fixture(autouse=True)
def no_profiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile takes seconds and most tests do not look at it; those that do give --profile true."""
    monkeypatch.setattr("kdlab.config_cli.PROFILE_BY_DEFAULT", False)


@pytest.fixture(scope="session")
def sixty_four() -> Batch:
    """64 real digits of the training split, normalised; do not change it."""
    import torch

    from kdlab.data import Digits
    from kdlab.types import Batch

    data = Digits()
    split = data.train_split.select(torch.arange(64))
    return data.plain_view(Batch(split.images, split.labels, torch.arange(64), torch.zeros(64, dtype=torch.int64)))


@pytest.fixture
def fit(tmp_path) -> Callable[..., pl.Trainer]:
    """`fit(method)` trains silently on the processor, 18 digits of each class, two epochs of nine batches."""
    import lightning.pytorch as pl

    from kdlab.data import Digits

    def run(method: pl.LightningModule, data: pl.LightningDataModule | None = None, ckpt_path=None, **arguments):
        options = {"max_epochs": 2, "enable_checkpointing": False, "logger": False, **arguments}
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=tmp_path, **options,
        )  # fmt: skip
        data = data or Digits(train_per_class=18, batch_size=20, val_fraction=0.1)
        trainer.fit(method, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return trainer

    return run


@pytest.fixture(scope="session")
def real_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real MNIST (raw files) and CIFAR-100; skips where neither is at hand."""
    if given := os.environ.get("KDLAB_DATA_DIR"):
        return Path(given)
    if not UNPACK.exists():
        pytest.skip(f"KDLAB_DATA_DIR is not set and {UNPACK} does not exist")
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, UNPACK, "--out", folder], check=True)
    return folder
