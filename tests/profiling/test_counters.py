"""Both counters against networks counted by hand, and operators that nobody counts."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlab.profiling.counters import THOP_STYLE, count_with_fvcore, count_with_torch
from kdlab.profiling.isolation import isolated


class Formula(nn.Module):
    """A function of the image, and of a parameter so that autograd has something to do."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return self.function(image * self.weight)


def counts(network, image):
    with isolated(network) as copied:
        return count_with_fvcore(copied, image), count_with_torch(copied, image)


IMAGE = torch.zeros(1, 4, 6, 6)
MATRIX = torch.zeros(5, 6)

BY_HAND = {
    "conv with stride and dilation": (nn.Conv2d(4, 8, 3, stride=2, dilation=2), (1, 4, 9, 9), 8 * 3 * 3 * 4 * 9),
    "depthwise conv": (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 6, 6), 4 * 4 * 4 * 9),
    "transposed conv": (nn.ConvTranspose2d(4, 8, 2, stride=2), (1, 4, 6, 6), 6 * 6 * 4 * 8 * 4),
    "grouped transposed conv": (nn.ConvTranspose2d(4, 8, 2, groups=2), (1, 4, 6, 6), 6 * 6 * 4 * 4 * 4),
    "conv in one dimension": (nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 8, 5)), (1, 4, 6, 6), 32 * 8 * 4 * 5),
    "linear on tokens": (nn.Linear(6, 7), (2, 4, 6, 6), 2 * 4 * 6 * 6 * 7),
    "linear on one vector": (nn.Sequential(nn.Flatten(), nn.Linear(144, 7)), (1, 4, 6, 6), 144 * 7),
    "matrix product, broadcast": (Formula(lambda x: MATRIX @ x), (3, 4, 6, 6), 3 * 4 * 5 * 6 * 6),
    "batched matrix product": (Formula(lambda x: torch.bmm(x[0], x[0])), (1, 4, 6, 6), 4 * 6 * 6 * 6),
    "einsum": (Formula(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)), (1, 4, 6, 6), 4 * 4 * 36),
    "attention": (Formula(lambda x: F.scaled_dot_product_attention(x, x[:, :, :5], x[:, :, :5, :2])), (1, 4, 6, 6), 4 * 6 * 5 * (6 + 2)),
    "attention with a causal mask": (Formula(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), (1, 4, 6, 6), 4 * 6 * 6 * 12),
    "nothing that counts": (nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), nn.AvgPool2d(2), nn.Softmax(1)), (1, 4, 6, 6), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_both_counters_find_the_multiply_adds_counted_by_hand(name):
    network, shape, expected = BY_HAND[name]
    ours, theirs = counts(network, torch.randn(shape))
    assert ours.macs == expected
    assert theirs == expected
    assert ours.uncounted == {}


def test_the_network_of_the_fixture_is_the_sum_of_its_table(hand_counted):
    ours, theirs = counts(hand_counted, torch.zeros(1, 3, 8, 8))
    assert ours.macs == theirs == 13_824 + 9_216 + 2_048 + 160
    assert ours.by_module == {"conv": 13_824, "grouped": 9_216, "strided": 2_048, "fc": 160}


def test_the_count_is_proportional_to_the_batch(hand_counted):
    ours, theirs = counts(hand_counted, torch.zeros(7, 3, 8, 8))
    assert ours.macs == theirs == 7 * 25_248


def test_parts_are_counted_inside_their_whole():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()), nn.Flatten(), nn.Linear(72, 3))
    ours, _ = counts(network, IMAGE)
    assert ours.by_module == {"0": 288, "0.0": 288, "2": 216}


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
def test_a_transformer_layer_is_not_hidden_by_its_fast_path(trainable):
    # 36 tokens of 8: projections 3 + 1, two attention products over both heads, two layers of 16
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True).requires_grad_(trainable)
    network = nn.Sequential(
        nn.Flatten(2), nn.Linear(36, 36), Formula(lambda x: x.transpose(1, 2)), nn.Linear(4, 8), layer
    )
    ours, theirs = counts(network, IMAGE)
    expected = 4 * 36 * 36 + 36 * 4 * 8 + 36 * 8 * 8 * 4 + 2 * 36 * 36 * 8 + 2 * 36 * 8 * 16
    assert ours.macs == theirs == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_lstm_is_named_as_uncounted():
    network = nn.Sequential(nn.Flatten(2), nn.LSTM(36, 5))
    ours, _ = counts(network, IMAGE)
    assert ours.uncounted == {"aten::lstm": 1}


def test_operators_that_nobody_counts_are_named_with_their_number():
    network = Formula(lambda x: torch.cdist(x, x) + torch.fft.fft2(x).real + torch.fft.fft2(x).real)
    ours, _ = counts(network, IMAGE)
    assert ours.uncounted == {"aten::cdist": 1, "aten::fft_fft2": 2}


def test_a_custom_operator_is_named_as_uncounted():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x @ x

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    ours, _ = counts(Formula(Square.apply), IMAGE)
    assert list(ours.uncounted) == ["prim::PythonOp.Square"]


def test_thop_style_adds_four_per_batch_norm_element_and_adaptive_pooling(hand_counted):
    image = torch.zeros(1, 3, 8, 8)
    hand_counted.eval()
    assert count_with_fvcore(hand_counted, image, THOP_STYLE).macs == 25_248 + 4 * 8 * 8 * 8
    # 2x2 outputs of 4 channels; each sums 3x3 elements and divides once
    assert count_with_fvcore(nn.AdaptiveAvgPool2d(2), IMAGE, THOP_STYLE).macs == 4 * 4 * (9 + 1)


def test_counting_is_silent(hand_counted, capsys, caplog):
    branching = Formula(lambda x: x if x.shape[0] > 0 and bool(x.sum() < 1) else -x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for network in (hand_counted, branching):
            counts(network, torch.zeros(1, 3, 8, 8))
    assert capsys.readouterr() == ("", "")
    assert caplog.text == ""
