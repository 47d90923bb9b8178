import pytest
import torch

from kdlab.data import counters
from kdlab.data.counters import Stream, below, counter_bits, nonnegative, permutation, uniform

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def splitmix64(state):
    """Return the published generator's next output for the (already advanced) state, in plain integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def unsigned(tensor):
    return [value & MASK for value in tensor.tolist()]


def test_mixing_reproduces_the_published_splitmix64_outputs():
    # First outputs for the state 1234567, as listed by Rosetta Code ("Pseudo-random numbers/Splitmix64").
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                 16408922859458223821]  # fmt: skip
    steps = torch.arange(1, 6) * counters._signed(GOLDEN) + 1234567
    assert unsigned(counters._mix(steps)) == published
    assert [counters._mix_int(1234567 + i * GOLDEN) for i in range(1, 6)] == published


@pytest.mark.parametrize(("seed", "epoch", "stream"), [(0, 0, 0), (7, 239, 1), (-1, 3, 2), (2**63 + 5, 10**6, 6)])
def test_bits_equal_the_same_hash_in_plain_integers(seed, epoch, stream):
    key = 0
    for counter in (stream, seed, epoch):
        key = splitmix64((key ^ counter) + GOLDEN)
    index = torch.tensor([0, 1, 2, 49_999, 2**40])
    expected = [splitmix64(key + i * GOLDEN) for i in index.tolist()]
    assert unsigned(counter_bits(seed, epoch, index, stream)) == expected


def test_bits_of_one_index_do_not_depend_on_its_neighbours():
    index = torch.arange(1000)
    bits = counter_bits(1, 2, index, Stream.VIEW)
    chosen = torch.tensor([17, 3, 999])
    assert torch.equal(counter_bits(1, 2, chosen, Stream.VIEW), bits[chosen])


def test_every_counter_changes_all_bits():
    index = torch.arange(1000)
    base = set(counter_bits(0, 0, index, 0).tolist())
    for seed, epoch, stream in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert base.isdisjoint(counter_bits(seed, epoch, index, stream).tolist())


def test_uniform_numbers_are_uniform():
    numbers = uniform(counter_bits(0, 0, torch.arange(100_000), Stream.MIXING))
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # five standard errors of 100,000 uniform numbers
    assert abs(numbers.mean() - 0.5) < 5 * 12**-0.5 / 100_000**0.5
    assert abs(numbers.var() - 1 / 12) < 5 * 180**-0.5 / 100_000**0.5


def test_below_hits_all_162_views_equally_often():
    count = 162_000
    hits = torch.bincount(below(counter_bits(3, 1, torch.arange(count), Stream.VIEW), 162), minlength=162)
    assert len(hits) == 162
    chi_square = ((hits - 1000.0) ** 2 / 1000).sum()
    assert 90 < chi_square < 260  # 161 degrees of freedom: mean 161, standard deviation 18


def test_the_views_of_an_image_in_successive_epochs_are_unrelated():
    index = torch.arange(20_000)
    this, following = (uniform(counter_bits(0, epoch, index, Stream.VIEW)) for epoch in (4, 5))
    assert abs(torch.corrcoef(torch.stack([this, following]))[0, 1]) < 5 / 20_000**0.5


def test_nonnegative_keeps_63_bits():
    kept = nonnegative(counter_bits(0, 0, torch.arange(1000), 0))
    assert kept.min() >= 0
    assert kept.max() > 2**62


def test_permutation_holds_every_position_once_and_differs_between_epochs_and_seeds():
    orders = [permutation(1000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(permutation(1000, 0, 1), orders[1])


def test_the_order_of_old_runs_never_changes():
    # Recorded when this was written: a change here makes every earlier run irreproducible.
    assert permutation(10, 0, 0).tolist() == [0, 8, 3, 4, 6, 2, 1, 9, 5, 7]
