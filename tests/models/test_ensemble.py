"""Ensembles: combination by hand, and the fused computation against the members one by one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdlab.errors import UsageError
from kdlab.models import (
    VGG8,
    WRN,
    CifarResNet,
    DigitsConv,
    MNISTNarrowConv,
    MNISTPerceptron,
    MNISTPooledConv,
    ShuffleNetV2,
    VGG11MLPHead,
)
from kdlab.models.ensemble import NetworkEnsemble, combine
from kdlab.models.layers import GlobalAveragePool
from kdlab.models.mobilenet_v2 import InvertedResidual
from kdlab.models.taps import Taps

MEMBERS = 3

# -- combination ---------------------------------------------------------------------------------------------


def log_odds(*rows: tuple[float, ...]) -> Tensor:
    """Logits [M, 1, K] of these probabilities, each row shifted by another constant."""
    return torch.tensor(rows, dtype=torch.float64).log().unsqueeze(1) + torch.arange(len(rows)).reshape(-1, 1, 1)


def test_mean_probabilities_of_two_members_by_hand():
    combined = combine(log_odds((0.9, 0.1), (0.2, 0.8)), "mean_probabilities")
    assert combined.exp().flatten().tolist() == pytest.approx([0.55, 0.45], rel=1e-12)


def test_mean_logits_of_two_members_is_the_geometric_mean_by_hand():
    combined = combine(log_odds((0.9, 0.1), (0.2, 0.8)), "mean_logits").softmax(dim=-1)
    first, second = math.sqrt(0.9 * 0.2), math.sqrt(0.1 * 0.8)
    assert combined.flatten().tolist() == pytest.approx(
        [first / (first + second), second / (first + second)], rel=1e-12
    )


def test_vote_of_three_members_by_hand():
    logits = log_odds((0.5, 0.3, 0.2), (0.6, 0.1, 0.3), (0.1, 0.7, 0.2))
    # votes 2, 1, 0 and mean probabilities 0.4, 0.3667, 0.2333, of 4
    expected = [2.4 / 4, (1 + 1.1 / 3) / 4, 0.7 / 3 / 4]
    assert combine(logits, "vote").exp().flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_a_vote_follows_the_majority_against_any_certainty_and_the_probabilities_in_a_tie():
    certain, barely = (1e-30, 1.0), (0.51, 0.49)
    assert combine(log_odds(certain, barely, barely), "vote").argmax() == 0
    assert combine(log_odds(certain, barely, barely), "mean_probabilities").argmax() == 1
    assert combine(log_odds(certain, barely), "vote").argmax() == 1


@pytest.mark.parametrize("rule", ["mean_logits", "mean_probabilities", "vote"])
def test_combined_logits_are_those_of_an_independent_formula(rule):
    logits = 3 * torch.randn(4, 6, 5, dtype=torch.float64)
    z = logits.numpy()
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    votes = (z == z.max(axis=2, keepdims=True)).sum(axis=0)
    expected = {
        "mean_logits": z.mean(axis=0),
        "mean_probabilities": np.log(p.mean(axis=0)),
        "vote": np.log((votes + p.mean(axis=0)) / 5),
    }[rule]
    np.testing.assert_allclose(combine(logits, rule).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("rule", ["mean_logits", "mean_probabilities", "vote"])
def test_half_precision_logits_are_combined_in_float32_and_stay_finite(rule):
    logits = torch.tensor([[[100.0, -100.0, 0.0]], [[-100.0, 50.0, 0.0]]], dtype=torch.bfloat16)
    combined = combine(logits, rule)
    assert combined.dtype == torch.float32
    assert combined.equal(combine(logits.float(), rule))
    assert torch.isfinite(combined).all()


def test_an_unknown_rule_is_refused():
    with pytest.raises(
        UsageError, match=r"combination is 'mean', but it must be mean_logits, mean_probabilities or vote"
    ):
        combine(torch.zeros(2, 1, 3), "mean")


# -- fused against one by one --------------------------------------------------------------------------------


def inverted_residuals() -> nn.Sequential:
    """Two blocks of MobileNetV2, the second with a shortcut."""
    blocks = [InvertedResidual(channels, 4, 1, 2, True, nn.ReLU6) for channels in (3, 4)]
    return nn.Sequential(*blocks, GlobalAveragePool(), nn.Linear(4, 5))


FUSABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "DigitsConv": (DigitsConv, (1, 8, 8)),
    "CifarResNet": (lambda: CifarResNet(8, (4, 4, 6, 8), num_classes=5), (3, 8, 8)),
    "WRN": (lambda: WRN(10, 1, num_classes=5), (3, 8, 8)),
    "VGG11MLPHead": (lambda: VGG11MLPHead(5, width=2, hidden=(8, 6), dropout=0.0), (3, 16, 16)),
    "inverted residuals": (lambda: inverted_residuals(), (3, 8, 8)),
    "MNISTNarrowConv": (lambda: MNISTNarrowConv(image_size=9), (1, 9, 9)),
    "MNISTPooledConv": (lambda: MNISTPooledConv(image_size=8, dropout=0.0), (1, 8, 8)),
    "MNISTPerceptron": (lambda: MNISTPerceptron(image_size=8, dropout=0.0), (1, 8, 8)),
}


def pair(name: str, dtype: torch.dtype = torch.float64) -> tuple[NetworkEnsemble, NetworkEnsemble]:
    """Two ensembles of equal weights; members differ in weights and running statistics. Fused, one by one."""
    build, shape = FUSABLE[name]
    networks = [build().to(dtype) for _ in range(MEMBERS)]
    for network in networks:
        network.train()(torch.randn(8, *shape, dtype=dtype))
    return NetworkEnsemble(networks, fusion="always"), NetworkEnsemble(copy.deepcopy(networks), fusion="never")


def images(name: str, own: bool = False, batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*[MEMBERS] * own, batch, *FUSABLE[name][1], dtype=dtype)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", FUSABLE)
def test_fused_members_answer_as_one_by_one_in_eval_mode(name, own):
    fused, looped = pair(name)
    fused.eval(), looped.eval()
    image = images(name, own)
    assert fused.runs_fused(image)
    assert not looped.runs_fused(image)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(fused.members(image), looped.members(image), rtol=1e-10, atol=1e-12)
    single = torch.stack(
        [network(own) for network, own in zip(looped.networks, image if own else [image] * 3, strict=True)]
    )
    assert looped.members(image).equal(single)  # in the order of the members


@pytest.mark.parametrize("name", FUSABLE)
def test_fused_members_in_float32_differ_from_one_by_one_by_rounding_only(name):
    fused, looped = pair(name, torch.float32)
    image = images(name, dtype=torch.float32)
    for mode in (True, False):
        fused.train(mode), looped.train(mode)
        torch.testing.assert_close(fused.members(image), looped.members(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", FUSABLE)
def test_three_fused_training_steps_leave_the_weights_gradients_and_statistics_of_one_by_one(name, own):
    ensembles = pair(name)
    optimizers = [torch.optim.SGD(ensemble.parameters(), lr=0.1, momentum=0.9) for ensemble in ensembles]
    for _ in range(3):
        image, label = images(name, own), torch.tensor([0, 1, 2, 3]).repeat(MEMBERS)
        for ensemble, optimizer in zip(ensembles, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(ensemble.members(image).flatten(0, 1), label).backward()
            optimizer.step()
    fused, looped = ensembles
    assert fused.runs_fused(image)
    gradients = [[parameter.grad for parameter in ensemble.parameters()] for ensemble in ensembles]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)
    state, expected = fused.state_dict(), looped.state_dict()
    torch.testing.assert_close(dict(state), dict(expected), rtol=1e-8, atol=1e-10)
    counters = [value for key, value in state.items() if key.endswith("num_batches_tracked")]
    assert all(counter == 4 for counter in counters)  # one batch before
    means = [value for key, value in state.items() if key.endswith("running_mean")]
    assert all(mean.abs().sum() > 0 for mean in means)


def test_forward_combines_the_members():
    fused, looped = pair("DigitsConv")
    image = images("DigitsConv")
    for ensemble in (fused, looped):
        ensemble.eval()
        ensemble.combination = "vote"
        torch.testing.assert_close(ensemble(image), combine(ensemble.members(image), "vote"))


# -- dropout, and randomness ---------------------------------------------------------------------------------


def equal_members_with_dropout() -> NetworkEnsemble:
    network = MNISTPerceptron(image_size=8, dropout=0.5)
    return NetworkEnsemble([copy.deepcopy(network) for _ in range(MEMBERS)], fusion="always")


def test_dropout_of_fused_members_differs_by_member_in_training_only():
    ensemble = equal_members_with_dropout()
    logits = ensemble.members(images("MNISTPerceptron", dtype=torch.float32))
    assert not logits[0].allclose(logits[1])
    assert not logits[1].allclose(logits[2])
    logits = ensemble.eval().members(images("MNISTPerceptron", dtype=torch.float32))
    torch.testing.assert_close(logits[0], logits[1])


def test_finding_out_whether_members_fuse_draws_no_random_numbers():
    ensemble = equal_members_with_dropout()
    image = images("MNISTPerceptron", dtype=torch.float32)
    torch.manual_seed(3)
    first = ensemble.members(image)
    torch.manual_seed(3)
    assert ensemble.members(image).equal(first)
    torch.manual_seed(3)
    ensemble.train()  # finds out anew
    assert ensemble.members(image).equal(first)


# -- when the members run one by one -------------------------------------------------------------------------


def test_auto_fuses_where_the_maps_are_neither_tiny_nor_large():
    ensemble = NetworkEnsemble([DigitsConv(widths=(8, 8, 8)) for _ in range(4)])
    # the largest map of the four has 4 * 8 * 8 * 8 = 2048 values, 2^19 in 256 images
    assert ensemble.runs_fused(torch.zeros(256, 1, 8, 8))
    assert not ensemble.runs_fused(torch.zeros(257, 1, 8, 8))
    assert ensemble.runs_fused(torch.zeros(2, 1, 8, 8))
    assert not ensemble.runs_fused(torch.zeros(1, 1, 8, 8))
    assert not NetworkEnsemble([DigitsConv()]).runs_fused(torch.zeros(1, 1, 8, 8))
    assert not ensemble.runs_fused(torch.zeros(0, 1, 8, 8))
    assert ensemble.members(torch.zeros(0, 1, 8, 8)).shape == (4, 0, 10)


class Mixing(nn.Module):
    """A convolution, an operation that could mix members up, a linear layer."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("mean", torch.randn(2, 1, 1))
        self.norm = nn.GroupNorm(2, 4)
        self.gate = nn.Conv2d(4, 1, 1)
        self.fc = nn.Linear(4, 3)
        self.operation = operation

    def forward(self, image: Tensor) -> Tensor:
        maps = self.conv(image)
        maps = {
            "softmax": lambda: maps.softmax(dim=1),
            "own parameter": lambda: maps * self.scale,
            "own buffer": lambda: self.conv(image - self.mean),
            "group norm": lambda: self.norm(maps),
            "cat": lambda: torch.cat([maps[:, 2:], maps[:, :2]], dim=1),
            "channel mean": lambda: maps - maps.mean(dim=1, keepdim=True),
            "channel pad": lambda: F.pad(maps, (0, 0, 0, 0, 1, 0))[:, :4],
            "reshape": lambda: maps.reshape(len(maps), 2, 2, *maps.shape[2:]).transpose(1, 2).flatten(1, 2),
            "control flow": lambda: maps if maps.sum() > 0 else -maps,
            "function": lambda: Double.apply(maps),
            "foreign tensor": lambda: maps + torch.ones(4, 1, 1),
            "spatial gate": lambda: maps * self.gate(maps),
            "keyword": lambda: torch.add(maps, maps, alpha=2),
            "rank 2 and 4": lambda: maps + maps.mean(dim=(2, 3)).view(len(maps), -1),
            "weights": lambda: F.conv2d(maps, self.conv.weight.mean(dim=1, keepdim=True), groups=4),
        }[self.operation]()
        logits: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, maps: Tensor) -> Tensor:
        return 2 * maps.as_subclass(Tensor)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * gradient


@pytest.mark.parametrize(
    "operation",
    [
        "softmax", "own parameter", "own buffer", "group norm", "cat", "channel mean", "channel pad", "reshape",
        "control flow", "function", "foreign tensor", "weights", "spatial gate", "keyword", "rank 2 and 4",
    ],
)  # fmt: skip
def test_what_may_mix_members_runs_one_by_one_with_the_right_numbers(operation):
    networks = [Mixing(operation) for _ in range(MEMBERS)]
    ensemble, image = NetworkEnsemble(networks), torch.randn(4, 2, 4, 4)
    assert not ensemble.runs_fused(image)
    assert ensemble.members(image).equal(torch.stack([network(image) for network in networks]))
    with pytest.raises(
        UsageError, match=r"fusion is always, but these members cannot run as one: .*; set fusion: auto"
    ):
        NetworkEnsemble(networks, fusion="always").members(image)


class Plain(nn.Module):
    """What users write: functions, residuals, ``view``, a grouped convolution of the image, norm first, no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.fc = nn.Linear(4 * 2 * 2, 3, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        maps = torch.relu(self.conv1(self.norm(image)))
        maps = maps + 0.5 * self.conv2(maps).sigmoid()
        maps += F.leaky_relu(maps)
        maps = F.adaptive_avg_pool2d(F.pad(maps, (1, 0, 1, 0)), 2)
        logits: Tensor = self.fc(maps.view(maps.size(0), -1))
        return logits


@pytest.mark.parametrize("own", [False, True])
def test_a_network_in_ordinary_pytorch_is_fused(own):
    networks = [Plain().double() for _ in range(MEMBERS)]
    ensemble = NetworkEnsemble(networks, fusion="always")
    image = torch.randn(*[MEMBERS] * own, 5, 2, 4, 4, dtype=torch.float64)
    expected = NetworkEnsemble(copy.deepcopy(networks), fusion="never").members(image)
    torch.testing.assert_close(ensemble.members(image), expected, rtol=1e-10, atol=1e-12)


class SharedInPlace(nn.Module):
    """Adds the first convolution to what all members still share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        shared = image * 1.0
        shared += self.conv(image)
        return shared.mean(dim=(2, 3))


class RowPool(nn.Module):
    """Pools [B, C, H], which PyTorch reads as channels x height x width: over neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)
        self.fc = nn.Linear(16, 3)

    def forward(self, image: Tensor) -> Tensor:
        rows = F.avg_pool2d(self.conv(image).mean(dim=3), 3, stride=1, padding=1)
        logits: Tensor = self.fc(rows.flatten(1))
        return logits


class Shapeless(nn.Module):
    """Returns maps instead of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.conv(image)
        return maps


@pytest.mark.parametrize("build", [SharedInPlace, RowPool, Shapeless])
def test_what_could_go_wrong_silently_is_not_fused(build):
    networks = [build() for _ in range(MEMBERS)]
    image = torch.randn(4, 2, 4, 4)
    assert NetworkEnsemble(networks).members(image).equal(torch.stack([network(image) for network in networks]))
    with pytest.raises(UsageError, match="cannot run as one"):
        NetworkEnsemble(networks, fusion="always").members(image)


def test_an_error_of_a_member_is_reported_with_its_own_shapes():
    ensemble = NetworkEnsemble([DigitsConv() for _ in range(MEMBERS)])
    with pytest.raises(RuntimeError, match=r"weight of size \[3, 1, 3, 3\].*got 2 channels"):
        ensemble(torch.zeros(2, 2, 8, 8))


def unequal(change: Callable[[list[DigitsConv]], object]) -> list[DigitsConv]:
    networks = [DigitsConv() for _ in range(MEMBERS)]
    change(networks)
    return networks


@pytest.mark.parametrize(
    ("networks", "reason"),
    [
        (unequal(lambda n: n.append(DigitsConv(widths=(4, 6, 6)))), "weights of other shapes"),
        (unequal(lambda n: n.append(CifarResNet(8, num_classes=10, in_channels=1))), "their modules differ"),
        (unequal(lambda n: n[1].layer1[1].register_buffer("more", torch.zeros(1))), "layer1.1: .*other shapes"),
        (unequal(lambda n: setattr(n[1].layer1[1], "eps", 0.1)), "layer1.1: eps is not.*the same"),
        (unequal(lambda n: setattr(n[2].layer1, "2", nn.Sigmoid())), "layer1.2: .*other classes"),
        (unequal(lambda n: [setattr(m.layer1[1], "momentum", None) for m in n]), "batch norm without momentum"),
        (unequal(lambda n: [setattr(m.layer1[1], "num_batches_tracked", None) for m in n]), "does not count"),
        (unequal(lambda n: [setattr(m, "fc", n[0].fc) for m in n]), "share a module"),
        (unequal(lambda n: n.append(n[0])), "share a module"),
        (unequal(lambda n: [setattr(m, "table", torch.zeros(1)) for m in n]), "table is not, or cannot be shown"),
        ([MNISTPerceptron(dropout=0.1), MNISTPerceptron(dropout=0.2)], "dropout: p is not"),
        ([VGG8(10, 1), ShuffleNetV2(10, 1)], "modules differ"),
        ([ShuffleNetV2(10, 1), ShuffleNetV2(10, 1)], "is not known to keep members apart|view"),
    ],
)  # fmt: skip
def test_members_that_are_not_one_architecture_run_one_by_one(networks, reason):
    image = torch.randn(4, 1, 28, 28)
    ensemble = NetworkEnsemble(networks)
    assert not ensemble.runs_fused(image)
    state = copy.deepcopy(ensemble.state_dict())
    torch.manual_seed(1)
    logits = ensemble.members(image)
    ensemble.load_state_dict(state)
    torch.manual_seed(1)
    assert logits.equal(torch.stack([network(image) for network in networks]))
    with pytest.raises(UsageError, match=f"cannot run as one: .*({reason})"):
        NetworkEnsemble(networks, fusion="always").members(image)


def test_members_in_unequal_modes_run_one_by_one_and_fuse_again_afterwards():
    fused, looped = pair("DigitsConv")
    image = images("DigitsConv")
    assert fused.runs_fused(image)
    for ensemble in (fused, looped):
        ensemble.networks[1].layer1.eval()
    assert not fused.runs_fused(image)
    torch.testing.assert_close(fused.members(image), looped.members(image))
    torch.testing.assert_close(dict(fused.state_dict()), dict(looped.state_dict()))
    fused.networks[1].layer1.train()
    assert fused.runs_fused(image)


def test_batch_norm_that_is_frozen_in_all_members_keeps_its_statistics_fused():
    fused, _ = pair("DigitsConv")
    for network in fused.networks:
        network.layer1.eval()
    before = copy.deepcopy(fused.state_dict())
    image = images("DigitsConv")
    assert fused.runs_fused(image)
    fused.members(image)
    for name, value in fused.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert value.equal(before[name]) is ("layer1" in name), name


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_a_hook_on_a_member_sees_its_own_tensors(register):
    fused, _ = pair("DigitsConv")
    image = images("DigitsConv")
    fused.members(image)
    calls = []
    handle = getattr(fused.networks[1].layer2, register)(lambda *args: calls.append(args))
    fused.members(image).sum().backward()
    assert len(calls) == 1
    handle.remove()
    assert fused.runs_fused(image)


def test_taps_on_members_see_the_features_of_one_by_one():
    fused, looped = pair("DigitsConv")
    image = images("DigitsConv")
    fused.eval()(image)
    outputs = Taps(fused, ["networks.0.layer1", "networks.2.pool"])(image)
    assert outputs.features["networks.2.pool"].shape == (4, 6)
    torch.testing.assert_close(outputs.features["networks.0.layer1"], looped.eval().networks[0].layer1(image))
    assert fused.runs_fused(image)


def test_a_compiled_ensemble_answers_as_one_by_one():
    fused, looped = pair("MNISTPerceptron")
    image = images("MNISTPerceptron")
    fused.eval().compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(fused(image), looped.eval()(image))
    torch._dynamo.reset()


# -- the members stay ordinary networks ----------------------------------------------------------------------


def test_weights_are_saved_once_under_their_member_and_load_back():
    fused, _ = pair("DigitsConv")
    fused.members(images("DigitsConv"))
    names = list(DigitsConv().state_dict())
    assert list(fused.state_dict()) == [f"networks.{member}.{name}" for member in range(3) for name in names]
    assert sum(parameter.numel() for parameter in fused.parameters()) == 3 * 613
    other, image = pair("DigitsConv")[0].eval(), images("DigitsConv")
    with torch.no_grad():
        before = other(image)
        other.load_state_dict(fused.state_dict())
        assert not other(image).allclose(before)
        torch.testing.assert_close(other(image), fused.eval()(image))


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.fc.weight.mul_(2),
        lambda network: setattr(network.fc, "weight", nn.Parameter(2 * network.fc.weight)),
        lambda network: setattr(network.fc.weight, "data", 2 * network.fc.weight.data),
        lambda network: network.layer1[1].running_mean.add_(1),
        lambda network: torch.optim.SGD(network.parameters(), lr=0.1, foreach=True).step(),
    ],
)
@pytest.mark.parametrize("no_grad", [torch.no_grad, torch.inference_mode])
def test_a_weight_that_changes_between_two_answers_is_noticed(change, no_grad):
    fused, looped = pair("DigitsConv")
    image = images("DigitsConv")
    with no_grad():
        before = fused.eval()(image)
    for ensemble in (fused, looped):
        ensemble.networks[1].fc.weight.grad = torch.eye(10, 6, dtype=torch.float64)
        with torch.no_grad():
            change(ensemble.networks[1])
    with no_grad():
        after = fused(image)
        torch.testing.assert_close(after, looped.eval()(image))
    assert not after.allclose(before)


def test_networks_built_in_inference_mode_are_fused():
    with torch.inference_mode():
        fused, looped = pair("DigitsConv")
        image = images("DigitsConv")
        fused.eval()(image)
        for ensemble in (fused, looped):
            ensemble.networks[0].fc.weight.mul_(2)
        torch.testing.assert_close(fused(image), looped.eval()(image))


def test_a_frozen_member_gets_no_gradient():
    fused, _ = pair("DigitsConv")
    fused.networks[1].requires_grad_(False)
    fused(images("DigitsConv")).sum().backward()
    assert all(parameter.grad is None for parameter in fused.networks[1].parameters())
    assert all(parameter.grad is not None for parameter in fused.networks[2].parameters())


def test_an_ensemble_can_be_copied_and_moved_after_it_ran_fused():
    fused, _ = pair("DigitsConv")
    image = images("DigitsConv")
    with torch.no_grad():
        expected = fused.eval()(image)
        copied = copy.deepcopy(fused)
        copied.networks[0].fc.weight.zero_()
        assert fused(image).equal(expected)
        assert not copied(image).allclose(expected)
        torch.testing.assert_close(fused.float()(image.float()), expected.float(), rtol=1e-5, atol=1e-5)


def test_no_graph_and_no_joined_weights_are_held_after_a_training_pass():
    fused, _ = pair("DigitsConv")
    fused(images("DigitsConv"))
    (plan,) = fused._fused.values()
    assert all(
        tensor.is_meta
        for tensor in [*plan._skeleton.parameters(), *plan._skeleton.state_dict().values()]
        if tensor.dim()
    )


def test_bf16_autocast_works_fused():
    fused, looped = pair("VGG11MLPHead", torch.float32)
    image = images("VGG11MLPHead", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, expected = fused.eval().members(image), looped.eval().members(image)
    assert ours.dtype == expected.dtype == torch.bfloat16
    # bfloat16 has 8 bits: 0.4% each in eleven layers
    torch.testing.assert_close(ours.float(), expected.float(), rtol=0.05, atol=0.05 * expected.abs().max().item())


def test_fused_members_train_under_ddp(tmp_path):
    fused, looped = pair("DigitsConv")
    image = images("DigitsConv")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(fused)(image).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert fused.runs_fused(image)
    looped(image).square().sum().backward()
    gradients = [[parameter.grad for parameter in ensemble.parameters()] for ensemble in (fused, looped)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_fused_members_cost_the_operations_of_one_by_one():
    counts = []
    for ensemble in pair("CifarResNet"):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            ensemble.eval().members(images("CifarResNet"))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


# -- refusals ------------------------------------------------------------------------------------------------


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(UsageError, match=r"networks is empty, .*list two networks or more"):
        NetworkEnsemble([])


@pytest.mark.parametrize("shape", [(2, 4, 1, 8, 8), (1, 8, 8), (64,)])
def test_images_of_another_shape_are_refused_with_both_that_are_possible(shape):
    fused, _ = pair("DigitsConv")
    with pytest.raises(UsageError, match=r"3 members got images of shape \[.*\]; give them \[B, C, H, W\].*\[3, B"):
        fused.members(torch.zeros(shape))


def test_members_with_different_numbers_of_classes_are_refused():
    ensemble = NetworkEnsemble([DigitsConv(10), DigitsConv(5)])
    with pytest.raises(UsageError, match=r"logits of shapes \[2, 10\], \[2, 5\]; give all the same num_classes"):
        ensemble(torch.zeros(2, 1, 8, 8))
