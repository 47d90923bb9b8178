import pytest
import torch
from scipy.stats import beta, kstest

from kdlab.data import CutMix, Mixup
from kdlab.data.counters import counter_bits
from kdlab.errors import UsageError

MIXINGS = [Mixup, CutMix]


def bits(number):
    return counter_bits(0, 0, torch.tensor([number]), 2)


def batch(count=5, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size, size, generator=generator), torch.arange(count)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_labels_are_weights_that_sum_to_one_in_the_proportion_of_the_pixels(mixing):
    images, labels = batch()
    marked = torch.zeros_like(images)
    marked[0] = 1  # image 0 is white, its neighbours black: the mean pixel is the share
    for number in range(50):
        mixed, weights = mixing()(marked, labels, 5, bits(number))
        assert weights.dtype == torch.float32
        assert weights.shape == (5, 5)
        torch.testing.assert_close(weights.sum(1), torch.ones(5))
        torch.testing.assert_close(mixed[0].mean(), weights[0, labels[0]], atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed[1].mean(), weights[1, labels[0]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_mixing_is_a_function_of_its_bits(mixing):
    images, labels = batch()
    first, again, other = (mixing()(images, labels, 5, bits(number)) for number in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_batch_of_one_image_stays_itself(mixing):
    images, labels = batch(1)
    for number in range(20):
        mixed, weights = mixing()(images, labels, 5, bits(number))
        assert torch.equal(mixed, images)
        assert torch.equal(weights, torch.tensor([[1.0, 0, 0, 0, 0]]))


def test_mixup_is_the_weighted_mean_with_the_neighbour_and_keeps_the_larger_weight():
    images, labels = batch()
    mixed, weights = Mixup()(images, labels, 5, bits(3))
    weight = weights[1, 1]
    assert 0.5 <= weight < 1
    torch.testing.assert_close(mixed[1], weight * images[1] + (1 - weight) * images[0])


def test_cutmix_pastes_one_rectangle_of_the_neighbour():
    images, labels = batch()
    for number in range(50):
        mixed, weights = CutMix()(images, labels, 5, bits(number))
        pasted = (mixed[2] == images[1]).all(0)
        assert torch.equal(mixed[2][:, ~pasted], images[2][:, ~pasted])
        rows, columns = pasted.any(1), pasted.any(0)
        assert torch.equal(pasted, rows[:, None] & columns[None, :])
        assert not rows.int().diff().abs().sum() > 2  # one piece
        torch.testing.assert_close(weights[2, 1], pasted.float().mean())


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_weight_is_beta_distributed(alpha):
    mixing = Mixup(alpha)
    draws = torch.cat([mixing.draw_weight(bits(number)) for number in range(2000)])
    # the table of 4,096 quantiles is off by up to 1 / 8192 in probability, far below what 2,000 draws resolve
    assert kstest(draws.numpy(), beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_an_alpha_that_is_not_positive_is_refused(alpha):
    with pytest.raises(UsageError, match="Mixup: alpha is"):
        Mixup(alpha)
