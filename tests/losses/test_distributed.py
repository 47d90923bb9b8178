"""Two processes with parts of a batch train as one process with all of it."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from kdlab.losses.distributed import gather_batch

SCRIPT = Path(__file__).with_name("ranks.py")
RANKS = runpy.run_path(str(SCRIPT))
RELATIONAL, MEANS, PARTS = RANKS["RELATIONAL"], RANKS["MEANS"], RANKS["PARTS"]
EQUAL_PARTS = ("halves", "interleaved")


@pytest.fixture(scope="module")
def computed(tmp_path_factory, two_ranks):
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("gloo")
    assert two_ranks(RANKS["compute_all"], folder) == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def one_process():
    """Value and gradients of every loss of all samples, without a process group."""
    losses = RELATIONAL | MEANS
    return {name: RANKS["step"](RANKS["network"](), loss, range(RANKS["SAMPLES"])) for name, loss in losses.items()}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)  # float64; only the order of sums differs


@pytest.mark.parametrize("how", PARTS)
@pytest.mark.parametrize("name", RELATIONAL)
def test_losses_that_relate_samples_see_the_global_batch(computed, one_process, name, how):
    expected = one_process[name]
    assert expected["loss"] > 0
    assert expected["weight"].abs().max() > 1e-4
    for rank in computed:
        for key, value in rank[f"{name}: {how}"].items():
            close(value, expected[key])


@pytest.mark.parametrize("how", EQUAL_PARTS)
@pytest.mark.parametrize("name", MEANS)
def test_means_over_samples_stay_local_and_average_to_the_global_loss(computed, one_process, name, how):
    expected = one_process[name]
    local = [rank[f"{name}: {how}"] for rank in computed]
    assert local[0]["loss"] != local[1]["loss"]
    close((local[0]["loss"] + local[1]["loss"]) / 2, expected["loss"])
    for rank in local:
        for key in rank.keys() - {"loss"}:
            close(rank[key], expected[key])


@pytest.mark.parametrize("name", RELATIONAL)
def test_without_the_global_batch_the_values_would_differ(one_process, name):
    # what the tests above rest on: half of the batch has other relations
    half = RANKS["step"](RANKS["network"](), RELATIONAL[name], PARTS["halves"][0])
    assert abs(half["loss"] - one_process[name]["loss"]) > 1e-3 * one_process[name]["loss"]


@pytest.mark.parametrize("sizes", RANKS["SIZES"])
def test_gather_batch_joins_parts_of_any_size_in_the_order_of_ranks(computed, sizes):
    parts = [torch.arange(2.0 * size, dtype=torch.float64).reshape(-1, 2) + 100 * r for r, size in enumerate(sizes)]
    for rank in computed:
        assert rank[f"gather {sizes}"]["gathered"].equal(torch.cat(parts))


@pytest.mark.parametrize("sizes", RANKS["SIZES"])
def test_each_process_gets_the_sum_of_the_gradients_of_all_for_its_own_samples(computed, sizes):
    # rank r weighs row i of the gathered rows by 10^r (i + 1)
    total = (1 + 10) * torch.arange(1.0, sum(sizes) + 1, dtype=torch.float64)[:, None].expand(-1, 2)
    for rank, expected in zip(computed, total.split(sizes), strict=True):
        close(rank[f"gather {sizes}"]["gradient"], expected)


def test_without_a_process_group_the_batch_is_the_input():
    tensor = torch.ones(2, 3)
    assert gather_batch(tensor) is tensor


def test_in_a_group_of_one_process_the_batch_is_the_input():
    tensor = torch.ones(2, 3)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert gather_batch(tensor) is tensor
    finally:
        dist.destroy_process_group()
