"""Multiply-adds of the networks of the literature and of the seed study, and what happens when counters disagree."""

import logging

import pytest
import torch
from torch import nn

from kdlab import models
from kdlab.profiling import MACsProfiler, ModelSizeProfiler, macs
from kdlab.profiling.counters import ForwardCount

CIFAR = (3, 32, 32)

# RepDistiller's networks for CIFAR-100: parameters, millions of MACs as published with them, digits
PUBLISHED = [
    (models.WRN, {"depth": 16, "width": 2}, 703_284, 101.1, 1),
    (models.WRN, {"depth": 40, "width": 1}, 569_780, 83.3, 1),
    (models.WRN, {"depth": 40, "width": 2}, 2_255_156, 327.6, 1),
    (models.ResNet8x4, {}, 1_233_540, 177.1, 1),
    (models.ResNet32x4, {}, 7_433_860, 1083.0, 1),
    (models.ResNet20, {}, 278_324, 40.8, 1),
    (models.ResNet32, {}, 472_756, 69.1, 1),
    (models.ResNet56, {}, 861_620, 125.8, 1),
    (models.ResNet110, {}, 1_736_564, 253.2, 1),
    (models.VGG8, {}, 3_965_028, 96.2, 1),
    (models.VGG13, {}, 9_462_180, 284.9, 1),
    (models.ResNet50, {}, 23_705_252, 1298.0, 1),
    (models.MobileNetV2, {}, 812_836, 6.52, 2),
    (models.ShuffleNetV1, {}, 949_258, 38.7, 1),
    (models.ShuffleNetV2, {}, 1_355_528, 44.5, 1),
]


@pytest.mark.parametrize(
    ("network", "arguments", "parameters", "millions", "digits"), PUBLISHED, ids=lambda v: getattr(v, "__name__", None)
)
def test_cifar_networks_have_the_published_macs_and_parameters(network, arguments, parameters, millions, digits):
    profiler = MACsProfiler()
    result = profiler.profile(network(**arguments), CIFAR)
    assert round(result.macs / 1e6, digits) == millions
    assert result.macs_torch == result.macs
    assert result.macs_agree
    assert result.uncounted_ops == {}
    assert profiler.as_metrics() == {"profile/macs": result.macs}
    assert sum(p.numel() for p in network(**arguments).parameters()) == parameters


def test_the_student_of_the_seed_study_has_its_macs_in_thop_style():
    # 19705.10 M at batch 128; convolutions and linear layers alone are 153,339,904
    student = models.VGG11MLPHead()
    result = MACsProfiler(thop_style=True).profile(student, CIFAR)
    assert result.macs == 153_339_904
    assert f"{128 * result.macs_thop_style / 1e6:.2f}" == "19705.10"
    assert ModelSizeProfiler().profile(student, CIFAR).parameters == 9_802_596


def test_four_sub_students_of_the_seed_study_have_their_macs_in_thop_style():
    # 19992.67 M at batch 128: exactly so if the sub-students end with an adaptive average pool, which thop counts
    sub_student = models.VGG11MLPHead(width=32, hidden=(256, 128))
    assert ModelSizeProfiler().profile(sub_student, CIFAR).parameters == 2_420_580
    without_pool = MACsProfiler(thop_style=True).profile(sub_student, CIFAR)
    sub_student.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    result = MACsProfiler(thop_style=True).profile(sub_student, CIFAR)
    assert result.macs == without_pool.macs == 38_744_576
    assert result.macs_thop_style == without_pool.macs_thop_style + 512 == 39_047_680 + 512
    assert f"{4 * 128 * result.macs_thop_style / 1e6:.2f}" == "19992.67"


def test_a_vision_transformer_has_its_attention_counted():
    # timm's vit_tiny: patches 28.9 M, 12 blocks of 4 projections and 2 MLP layers, attention 178.8 M
    network = models.TimmModel("vit_tiny_patch16_224", num_classes=1000)
    tokens, width = 197, 192
    by_hand = 196 * 768 * width + 12 * (12 * tokens * width**2 + 2 * tokens**2 * width) + width * 1000
    result = MACsProfiler().profile(network, (3, 224, 224))
    assert result.macs == result.macs_torch == by_hand
    assert result.macs == pytest.approx(1253.68e6, abs=5e3)


def test_the_same_network_has_the_same_macs_each_time_and_in_either_mode():
    network = models.DigitsConv()
    profiler = MACsProfiler()
    assert profiler.profile(network.train(), (1, 8, 8)) == profiler.profile(network.eval(), (1, 8, 8))


def test_the_digits_student_is_counted_by_hand():
    # three 3x3 convolutions of 1 -> 3 -> 6 -> 6 channels on 8x8, 4x4 and 2x2 maps, then 6 -> 10
    result = MACsProfiler().profile(models.DigitsConv(), (1, 8, 8))
    assert result.macs == 64 * 27 + 16 * 162 + 4 * 324 + 60
    assert result.image_shape == (1, 8, 8)
    assert result.macs_convention == (
        "conv + linear + matmul + attention multiply-adds, no norms, no biases, no broadcast products"
    )
    assert result.macs_thop_style is None


@pytest.mark.parametrize(
    ("second", "agree"), [(10_000, True), (10_100, True), (9_901, True), (10_200, False), (0, False)]
)
def test_counters_that_differ_by_more_than_one_percent_are_flagged(monkeypatch, caplog, second, agree):
    monkeypatch.setattr(macs, "count_with_fvcore", lambda network, image: ForwardCount(10_000, {}, {}))
    monkeypatch.setattr(macs, "count_with_torch", lambda network, image: second)
    result = MACsProfiler().profile(models.DigitsConv(), (1, 8, 8))
    assert result.macs_agree is agree
    assert result.macs_difference == pytest.approx(abs(10_000 - second) / max(10_000, second))
    warned = f"macs of DigitsConv: fvcore counts 10,000 MACs, torch {second:,}; do not trust either"
    assert [record.message for record in caplog.records] == ([] if agree else [warned])
    assert result.macs_doubts == (() if agree else (warned.removeprefix("macs of DigitsConv: "),))


def test_a_network_with_an_unsupported_operator_says_which(caplog):
    class Distances(nn.Linear):
        def forward(self, image):
            return torch.cdist(super().forward(image.flatten(1)), self.weight.mT)

    with caplog.at_level(logging.WARNING):
        result = MACsProfiler().profile(Distances(64, 10), (1, 8, 8))
    assert result.uncounted_ops == {"aten::cdist": 1}
    assert (
        "macs of Distances: nobody counts aten::cdist (x1), which may multiply and add; MACs is too low" in caplog.text
    )


def test_a_product_that_no_counter_sees_is_not_silently_zero():
    class Written(nn.Linear):
        def forward(self, image):
            return (image.flatten(1)[:, None] * self.weight).sum(-1)

    result = MACsProfiler().profile(Written(64, 10), (1, 8, 8))
    assert (result.macs, result.macs_agree, result.uncounted_ops) == (0, True, {})  # they agree on nothing
    assert result.uncounted_parameters == ("weight",)
    assert result.macs_doubts == ("nobody counts the products with weight; MACs is too low",)


def test_an_ensemble_costs_the_sum_of_its_members():
    from kdlab.models import DigitsConv
    from kdlab.models.ensemble import NetworkEnsemble

    one = MACsProfiler().profile(DigitsConv(), (1, 8, 8))
    for fusion in ("auto", "always", "never"):
        four = MACsProfiler().profile(NetworkEnsemble([DigitsConv() for _ in range(4)], fusion=fusion), (1, 8, 8))
        assert four.macs == 4 * one.macs
        assert four.macs_agree
