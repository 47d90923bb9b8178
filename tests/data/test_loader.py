import pytest
import torch

from kdlab.data import BatchLoader, Split
from kdlab.data.counters import permutation
from kdlab.errors import UsageError
from kdlab.types import SEED_STRIDE


def make_split(count):
    """Images whose single pixel, label and position tell which image they are; file position = 3 i + 1."""
    number = torch.arange(count)
    labels = number % 10
    return Split((number % 256).to(torch.uint8).view(-1, 1, 1, 1), labels, labels, 3 * number + 1)


def train_loader(count=103, batch_size=8, **arguments):
    return BatchLoader(make_split(count), batch_size, training=True, **{"seed": 5, "num_views": 162, **arguments})


def eval_loader(count, batch_size, rank=0, world_size=1):
    return BatchLoader(make_split(count), batch_size, training=False, rank=rank, world_size=world_size)


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(batches, others):
    return len(batches) == len(others) and all(
        torch.equal(one, other) for pair in zip(batches, others, strict=True) for one, other in zip(*pair, strict=True)
    )


def test_a_batch_holds_what_belongs_together():
    for batch in train_loader():
        number = (batch.index - 1) // 3
        assert batch.image.dtype == torch.uint8
        assert torch.equal(batch.image.view(-1), (number % 256).to(torch.uint8))
        assert torch.equal(batch.label, number % 10)
        assert batch.label.dtype == batch.index.dtype == batch.view.dtype == torch.int64


def test_an_epoch_of_one_process_is_the_permutation_cut_into_batches():
    batches = epoch_of(train_loader(), 4)
    assert [len(batch.label) for batch in batches] == [8] * 12 + [7]
    assert torch.equal(torch.cat([batch.index for batch in batches]), 3 * permutation(103, 5, 4) + 1)


def test_epochs_and_seeds_have_other_orders_and_views_and_the_same_again_when_asked_again():
    loader = train_loader()
    first, second = epoch_of(loader, 0), epoch_of(loader, 1)
    assert not same(first, second)
    assert same(epoch_of(loader, 0), first)
    assert not same(epoch_of(train_loader(seed=6), 0), first)
    views = {}
    for batches in (first, second):
        for batch in batches:
            for index, view in zip(batch.index.tolist(), batch.view.tolist(), strict=True):
                views.setdefault(index, []).append(view)
    assert sum(one == other for one, other in views.values()) < 10  # 103 / 162 expected
    assert max(map(max, views.values())) <= 161


def test_without_reshuffling_every_epoch_is_the_first():
    loader = train_loader(reshuffle=False)
    assert same(epoch_of(loader, 3), epoch_of(train_loader(), 0))


def test_the_view_of_an_image_does_not_depend_on_the_rest_of_the_split():
    small = BatchLoader(make_split(103).select(torch.arange(0, 103, 2)), 8, training=True, seed=5, num_views=162)
    views = {}
    for batch in epoch_of(train_loader(), 2):
        views.update(zip(batch.index.tolist(), batch.view.tolist(), strict=True))
    for batch in epoch_of(small, 2):
        assert [views[index] for index in batch.index.tolist()] == batch.view.tolist()


def test_countless_views_are_63_random_bits_and_a_single_view_is_zero():
    countless = torch.cat([batch.view for batch in train_loader(num_views=None)])
    assert countless.min() >= 0
    assert len(countless.unique()) == 103
    assert all((batch.view == 0).all() for batch in train_loader(num_views=1))
    assert all((batch.view == 0).all() for batch in eval_loader(20, 6))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8, 9, 33, 37])
def test_evaluation_on_any_number_of_processes_sees_every_image_once_in_equally_many_batches(world_size, count):
    ranks = [list(eval_loader(count, 4, rank, world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {len(eval_loader(count, 4, 0, world_size))}
    seen = torch.cat([batch.index for batches in ranks for batch in batches])
    assert torch.equal(seen.sort().values, 3 * torch.arange(count) + 1)
    for batches in ranks:
        assert all(batch.image.shape[1:] == (1, 1, 1) and len(batch.image) == len(batch.label) for batch in batches)


def test_a_rank_without_images_yields_an_empty_batch():
    (batch,) = eval_loader(1, 4, rank=1, world_size=2)
    assert [tuple(tensor.shape) for tensor in batch] == [(0, 1, 1, 1), (0,), (0,), (0,)]


def test_evaluation_of_one_process_keeps_the_order_of_the_file():
    assert torch.equal(torch.cat([batch.index for batch in eval_loader(37, 5)]), 3 * torch.arange(37) + 1)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_equal_global_batches_hold_the_same_images_and_views_on_any_number_of_processes(world_size):
    count, global_size = 103, 12
    alone = epoch_of(train_loader(count, global_size), 3)
    ranks = [
        epoch_of(train_loader(count, global_size // world_size, rank=rank, world_size=world_size), 3)
        for rank in range(world_size)
    ]
    for number, batches in enumerate(zip(*ranks, strict=True)):
        assert len({len(batch.label) for batch in batches}) == 1  # equal ranks: DDP's mean gradient is exact
        together = {pair for batch in batches for pair in zip(batch.index.tolist(), batch.view.tolist(), strict=True)}
        expected = list(zip(alone[number].index.tolist(), alone[number].view.tolist(), strict=True))
        assert len(expected) - len(together) < 2 * world_size
        assert together == set(expected[: len(together)])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_hardly_any_training_image_is_left_out_and_never_the_same(world_size):
    left_out = []
    for epoch in range(3):
        seen = torch.cat(
            [
                batch.index
                for rank in range(world_size)
                for batch in epoch_of(train_loader(107, 8, rank=rank, world_size=world_size), epoch)
            ]
        )
        assert len(seen.unique()) == len(seen)
        left_out.append(set((3 * torch.arange(107) + 1).tolist()) - set(seen.tolist()))
    assert {len(images) for images in left_out} == {107 % world_size}  # the last global batch is large enough here
    if world_size > 1:
        assert left_out[0] != left_out[1]


def test_a_last_batch_of_a_single_image_is_left_out_because_batch_norm_cannot_train_on_it():
    assert [len(batch.label) for batch in train_loader(17, 8)] == [8, 8]
    assert len(list(train_loader(17, 1))) == 17
    assert [len(batch.label) for batch in train_loader(19, 4, rank=1, world_size=2)] == [4, 4]
    assert len(list(eval_loader(17, 8))) == 3


def test_the_epoch_is_read_at_the_first_batch_because_lightning_calls_iter_before_set_epoch():
    loader = train_loader()
    iterator = iter(loader)
    loader.sampler.set_epoch(3)
    assert same(list(iterator), epoch_of(train_loader(), 3))


@pytest.mark.parametrize("stop_after", [0, 1, 5, 12])
def test_a_restored_loader_goes_on_with_the_very_next_batch_and_then_from_the_start(stop_after):
    interrupted = train_loader()
    interrupted.sampler.set_epoch(2)
    iterator = iter(interrupted)
    for _ in range(stop_after):
        next(iterator)
    resumed = train_loader()
    resumed.load_state_dict(interrupted.state_dict())
    iterator = iter(resumed)
    resumed.sampler.set_epoch(2)
    assert same(list(iterator), epoch_of(train_loader(), 2)[stop_after:])
    assert same(epoch_of(resumed, 3), epoch_of(train_loader(), 3))


def test_a_state_saved_after_an_epoch_starts_the_next_one_at_its_first_batch():
    finished = train_loader()
    epoch_of(finished, 2)
    resumed = train_loader()
    resumed.load_state_dict(finished.state_dict())
    assert same(epoch_of(resumed, 3), epoch_of(train_loader(), 3))


def test_the_state_of_a_resumed_loader_counts_from_the_start_of_the_epoch():
    loader = train_loader()
    loader.load_state_dict({**loader.state_dict(), "epoch": 1, "yielded": 4})
    next(iter(loader))
    assert loader.state_dict()["epoch"] == 1
    assert loader.state_dict()["yielded"] == 5


@pytest.mark.parametrize(
    ("name", "changed"), [("batch_size", {"batch_size": 4}), ("seed", {"seed": 6}), ("world_size", {"world_size": 2})]
)
def test_resuming_inside_an_epoch_that_has_other_batches_now_is_refused(name, changed):
    loader = train_loader()
    next(iter(loader))
    with pytest.raises(UsageError, match=f"in the middle of an epoch with {name} "):
        train_loader(**changed).load_state_dict(loader.state_dict())
    list(loader)
    train_loader(**changed).load_state_dict(loader.state_dict())  # between two epochs everything may change


# -- several streams ------------------------------------------------------------------------------------------


def streams_of(batches, streams):
    """The batches of each stream."""
    parts = [[tensor.chunk(streams) for tensor in batch] for batch in batches]
    return [[tuple(part[s] for part in batch) for batch in parts] for s in range(streams)]


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("epoch", [0, 3])
def test_each_stream_is_what_a_loader_of_one_stream_yields_for_its_seed(streams, epoch):
    batches = epoch_of(train_loader(streams=streams), epoch)
    assert [len(batch.label) for batch in batches] == [8 * streams] * 12 + [7 * streams]
    for stream, own in enumerate(streams_of(batches, streams)):
        alone = epoch_of(train_loader(seed=5 + stream * SEED_STRIDE), epoch)
        assert same(own, alone)
        assert stream == 0 or not same(own, epoch_of(train_loader(), epoch))


def test_streams_of_runs_with_neighbouring_seeds_do_not_meet():
    first = streams_of(train_loader(streams=4), 4)
    second = streams_of(train_loader(seed=6, streams=4), 4)
    assert not any(same(one, other) for one in first for other in second)


@pytest.mark.parametrize("world_size", [2, 3])
def test_streams_are_sharded_like_a_single_one(world_size):
    for rank in range(world_size):
        place = {"rank": rank, "world_size": world_size, "batch_size": 4}
        batches = epoch_of(train_loader(streams=3, **place), 1)
        for stream, own in enumerate(streams_of(batches, 3)):
            assert same(own, epoch_of(train_loader(seed=5 + stream * SEED_STRIDE, **place), 1))


def test_a_last_batch_of_a_single_image_per_stream_is_left_out():
    assert [len(batch.label) for batch in train_loader(17, 8, streams=3)] == [24, 24]


def test_streams_go_on_with_the_very_next_batch():
    interrupted = train_loader(streams=3)
    interrupted.sampler.set_epoch(2)
    iterator = iter(interrupted)
    for _ in range(5):
        next(iterator)
    resumed = train_loader(streams=3)
    resumed.load_state_dict(interrupted.state_dict())
    resumed.sampler.set_epoch(2)
    assert same(list(resumed), epoch_of(train_loader(streams=3), 2)[5:])


def test_a_run_goes_on_in_mid_epoch_with_as_many_streams_as_before():
    loader = train_loader(streams=3)
    next(iter(loader))
    with pytest.raises(UsageError, match="with streams 3, now it is 2; resume with streams 3"):
        train_loader(streams=2).load_state_dict(loader.state_dict())


def test_each_stream_is_mixed_in_itself_as_it_would_be_alone():
    from types import SimpleNamespace

    from kdlab.data import Digits, Mixup
    from kdlab.types import SEED_STRIDE

    def first_batch(seed, streams):
        data = Digits(batch_size=16, seed=seed, mixing=Mixup())
        method = SimpleNamespace(streams=streams)
        data.trainer = SimpleNamespace(
            lightning_module=method, global_rank=0, world_size=1, overfit_batches=0,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        return data.training_view(next(iter(data.train_dataloader())))

    both = first_batch(3, 2)
    for stream in (0, 1):
        alone = first_batch(3 + stream * SEED_STRIDE, 1)
        assert both.image[16 * stream :][:16].equal(alone.image)
        assert both.label[16 * stream :][:16].equal(alone.label)


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_images_of_some_batches_are_counted_over_all_processes(world_size):
    loaders = [train_loader(101, 16 // world_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    sizes = torch.tensor([[len(batch.label) for batch in loader] for loader in loaders]).sum(dim=0)
    assert len(sizes) == 7
    for first, stop in ((0, 1), (0, 7), (4, 6), (4, 8), (6, 8)):  # there is no eighth batch
        assert loaders[0].images_in(first, stop) == sizes[first:stop].sum()
