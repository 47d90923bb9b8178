"""Both counters against networks counted by hand, and operators that nobody counts."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlab.profiling.counters import THOP_STYLE, ForwardCount, count_with_fvcore, count_with_torch
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


class Broadcast(nn.Module):
    """A linear layer written as a multiplication and a sum, between others."""

    def __init__(self, multiply):
        super().__init__()
        self.before = nn.Linear(144, 8)
        self.scale = nn.Parameter(torch.ones(1, 8))  # as of a norm: one dimension above 1
        self.position = nn.Parameter(torch.ones(8, 8))  # only added
        self.matrix = nn.Parameter(torch.ones(5, 8))
        self.multiply = multiply

    def forward(self, image):
        features = self.scale * self.before(image.flatten(1)) + self.position.sum(0)
        features = (features[:, None] + self.position).mean(1)
        return self.multiply(features, self.matrix)


HIDDEN = {
    "multiplied and summed": lambda x, w: (x[:, None] * w).sum(-1),
    "multiplied in place": lambda x, w: x[:, None].repeat(1, 5, 1).mul_(w).sum(-1),
    "normalised first": lambda x, w: (x[:, None] * (w / w.norm(dim=1, keepdim=True))).sum(-1),
    "through a view": lambda x, w: (w.t()[None] * x[:, :, None]).sum(1),
    "and in a counted product too": lambda x, w: x @ w.t() + (x[:, None] * w).sum(-1),
    "in a distance": lambda x, w: torch.cdist(x, w),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_weight_matrix_that_multiplies_without_being_counted_is_named(how):
    count, _ = counts(Broadcast(HIDDEN[how]), IMAGE)
    assert count.uncounted_parameters == ("matrix",)
    assert "nobody counts the products with matrix; MACs is too low" in count.doubts(count.macs, "torch")


SEEN = {
    "linear": F.linear,
    "product with its transpose": lambda x, w: x @ w.t(),
    "einsum": lambda x, w: torch.einsum("bd,kd->bk", x, w),
    "normalised first": lambda x, w: F.linear(x, w / w.norm(dim=1, keepdim=True)),
    "masked first": lambda x, w: F.linear(x, w * (w.detach() > 0)),
    "as a convolution": lambda x, w: F.conv2d(x[..., None, None], w[..., None, None]).flatten(1),
}


@pytest.mark.parametrize("how", SEEN)
def test_a_weight_matrix_in_a_counted_product_is_not_named(how):
    count, second = counts(Broadcast(SEEN[how]), IMAGE)
    assert count.macs == second == 144 * 8 + 8 * 5
    assert count.uncounted_parameters == ()
    assert count.doubts(second, "torch") == ()


def test_the_weights_of_an_lstm_are_named():
    count, _ = counts(nn.Sequential(nn.Flatten(2), nn.LSTM(36, 5)), IMAGE)
    assert count.uncounted_parameters == ("1.weight_ih_l0", "1.weight_hh_l0")


def test_doubts_name_operators_parameters_and_counters():
    count = ForwardCount(1000, {}, {"aten::lstm": 2}, ("a", "b", "c", "d", "e"))
    assert count.doubts(1020, "torch") == (
        "nobody counts aten::lstm (x2), which may multiply and add; MACs is too low",
        "nobody counts the products with a, b, c and 2 more; MACs is too low",
        "fvcore counts 1,000 MACs, torch 1,020; do not trust either",
    )
    assert ForwardCount(1000, {}, {}).doubts(1010, "torch") == ()


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
