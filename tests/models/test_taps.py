"""Taps: the right tensors with their graph, on any network, under compilation, and nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from kdlab.errors import UsageError
from kdlab.models import DigitsConv, ResNet20
from kdlab.models.taps import Taps, layer_names


class SmallNet(nn.Module):
    """Two linear layers around batch norm; the second runs `times` times."""

    def __init__(self, inplace: bool = False, times: int = 1) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"first": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4)})
        self.relu = nn.ReLU(inplace=inplace)
        self.repeated = nn.Linear(4, 4)
        self.pair = Pair()
        self.head = nn.Linear(4, 3)
        self.times = times

    def forward(self, image: Tensor) -> Tensor:
        features = self.relu(self.inner["norm"](self.inner["first"](image)))
        for _ in range(self.times):
            features = self.repeated(features)
        logits: Tensor = self.head(self.pair(features)[0])
        return logits


class Pair(nn.Module):
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, features


def untouched(network: nn.Module) -> bool:
    """Whether nothing of a tap is in the network."""
    return all(
        "forward" not in vars(module) and not module._forward_hooks and not module._forward_pre_hooks
        for module in network.modules()
    )


def test_features_are_the_outputs_of_the_named_layers():
    network = DigitsConv().eval()
    image = torch.randn(3, 1, 8, 8)
    outputs = Taps(network, ["layer1", "layer2.0", "pool"])(image)
    first = network.layer1(image)
    second = network.layer2[0](network.pool1(first))
    assert list(outputs.features) == ["layer1", "layer2.0", "pool"]
    assert outputs.features["layer1"].equal(first)
    assert outputs.features["layer2.0"].equal(second)
    assert outputs.features["pool"].shape == (3, 6)
    assert outputs.logits.equal(network(image))
    assert outputs.members == ()


def test_features_keep_their_graph():
    network = DigitsConv()
    image = torch.randn(3, 1, 8, 8)
    Taps(network, ["layer1"])(image).features["layer1"].square().sum().backward()
    by_taps = network.layer1[0].weight.grad.clone()
    network.zero_grad()
    network.layer1(image).square().sum().backward()
    assert by_taps.equal(network.layer1[0].weight.grad)
    assert network.fc.weight.grad is None


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_in_the_network_and_its_mode_stays(training):
    network = DigitsConv().train(training)
    names = list(network.state_dict())
    taps = Taps(network, ["layer1", "layer3.2"])
    taps(torch.zeros(2, 1, 8, 8))
    assert untouched(network)
    assert network.training is training
    assert list(network.state_dict()) == names
    assert not isinstance(taps, nn.Module)


def test_nothing_is_left_after_an_error_in_the_pass():
    network = DigitsConv(in_channels=1)
    with pytest.raises(RuntimeError, match="channels"):
        Taps(network, ["layer3"])(torch.zeros(2, 3, 8, 8))
    assert untouched(network)


def test_a_copy_taps_the_copied_network():
    network = DigitsConv()
    taps = Taps(network, ["layer1"])
    network.taps = taps  # as a method holds both
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied.layer1[0].weight.zero_()
    assert copied.taps.network is copied
    image = torch.randn(2, 1, 8, 8)
    assert copied.taps(image).features["layer1"].abs().sum() == 0
    assert taps(image).features["layer1"].abs().sum() > 0


def test_two_taps_on_one_network_do_not_disturb_each_other():
    network = DigitsConv().eval()
    image = torch.randn(2, 1, 8, 8)
    first, second = Taps(network, ["layer1", "fc"]), Taps(network, ["layer1"])
    assert list(first(image).features) == ["layer1", "fc"]
    assert list(second(image).features) == ["layer1"]
    assert first(image).features["layer1"].equal(second(image).features["layer1"])


def test_taps_work_inside_a_tapped_pass():
    network = DigitsConv().eval()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.taps = Taps(network, ["layer1"])

        def forward(self, image: Tensor) -> Tensor:
            self.seen = self.taps(image).features["layer1"]
            return self.seen.mean(dim=(1, 2, 3))

    outer = Outer()
    outputs = Taps(outer, ["network.layer1"])(torch.randn(2, 1, 8, 8))
    assert outputs.features["network.layer1"] is outer.seen
    assert untouched(outer)


def test_a_forward_that_somebody_else_replaced_stays_replaced():
    network = DigitsConv()
    network.layer1.forward = lambda image: image.new_ones(len(image), 3, 8, 8)
    mine = network.layer1.forward
    assert Taps(network, ["layer1"])(torch.zeros(2, 1, 8, 8)).features["layer1"].eq(1).all()
    assert network.layer1.forward is mine


def test_a_layer_that_was_replaced_since_is_tapped_where_it_was():
    network = SmallNet()
    taps = Taps(network, ["inner.norm", "relu"])
    image = torch.randn(8, 4)
    expected = taps(image)
    assert nn.SyncBatchNorm.convert_sync_batchnorm(network) is network
    assert type(network.inner["norm"]) is nn.SyncBatchNorm
    assert taps(image).features["inner.norm"].equal(expected.features["inner.norm"])
    assert untouched(network)


def test_no_layers_means_the_network_alone():
    network = DigitsConv().eval()
    outputs = Taps(network, [])(torch.zeros(2, 1, 8, 8))
    assert dict(outputs.features) == {}
    assert outputs.logits.shape == (2, 10)


def test_a_layer_named_twice_is_tapped_once():
    taps = Taps(DigitsConv(), ["layer1", "layer1"])
    assert taps.layers == ("layer1",)
    assert list(taps(torch.zeros(2, 1, 8, 8)).features) == ["layer1"]


def test_layer_names_lists_every_path_but_the_network_itself():
    assert layer_names(nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))) == ["0", "1", "1.0"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("layr2", r"ResNet20 has no layer 'layr2'; did you mean .*layer2"),
        ("zzz", r"has no layer 'zzz'; the first of its \d+: conv1, bn1.*; list all with kdlab\.models\.taps"),
        ("", "has no layer ''"),
        ("layer2.99", r"has no layer 'layer2\.99'; did you mean .*layer2\.\d"),
    ],
)
def test_an_unknown_layer_is_refused_with_close_names(path, message):
    with pytest.raises(UsageError, match=message) as caught:
        Taps(ResNet20(), ["layer1", path])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("times", [0, 2])
def test_a_layer_that_does_not_run_exactly_once_is_refused(times):
    with pytest.raises(UsageError, match=rf"layer repeated ran {times} times in one pass of SmallNet.*tap the module"):
        Taps(SmallNet(times=times), ["repeated"])(torch.randn(2, 4))


def test_a_layer_without_a_tensor_is_refused():
    with pytest.raises(UsageError, match="layer pair returns a tuple, but a feature is a tensor"):
        Taps(SmallNet(), ["pair"])(torch.randn(2, 4))


def test_a_feature_that_a_later_layer_overwrites_is_refused():
    image = torch.randn(8, 4)
    with pytest.raises(UsageError, match=r"output of layer inner\.norm is overwritten .*inplace=False"):
        Taps(SmallNet(inplace=True), ["inner.norm"])(image)
    outputs = Taps(SmallNet(inplace=False), ["inner.norm"])(image)
    assert outputs.features["inner.norm"].min() < 0  # before its ReLU
    assert Taps(SmallNet(inplace=True), ["relu"])(image).features["relu"].min() == 0


def test_taps_work_in_inference_mode():
    with torch.inference_mode():
        assert Taps(SmallNet().eval(), ["relu"])(torch.randn(2, 4)).features["relu"].shape == (2, 4)


class Tapped(nn.Module):
    """Stands for the LightningModule that DDP wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SmallNet()
        self.taps = Taps(self.network, ["relu"])

    def forward(self, image: Tensor) -> Tensor:
        outputs = self.taps(image)
        return outputs.logits.sum() + outputs.features["relu"].square().sum()


def test_taps_work_under_ddp_which_sees_the_network_once(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        alone = Tapped()
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(alone))
        image = torch.randn(8, 4)
        for module in (alone, wrapped):
            module(image).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert [name for name, _ in wrapped.named_parameters()] == [
        f"module.network.{name}" for name, _ in alone.network.named_parameters()
    ]
    for ours, expected in zip(wrapped.parameters(), alone.parameters(), strict=True):
        assert ours.grad.equal(expected.grad)


@pytest.fixture
def compiler():
    """Counts the graphs that are compiled."""
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


@pytest.mark.parametrize("inplace", [False, True])
def test_taps_on_a_compiled_network_are_compiled_once_and_stay_right_beside_passes_without(compiler, inplace):
    network = SmallNet(inplace)
    taps, more = Taps(network, ["inner.norm"]), Taps(network, ["inner.norm", "head"])
    network.compile(backend=compiler, fullgraph=True)
    plain = copy.deepcopy(SmallNet())
    plain.load_state_dict(network.state_dict())
    for step in range(3):
        image = torch.randn(8, 4)
        for each in (taps, more, taps):
            outputs = each(image)
            expected = plain.inner["norm"](plain.inner["first"](image))
            torch.testing.assert_close(outputs.features["inner.norm"], expected)
            assert outputs.features["inner.norm"].requires_grad
        network(image)
        assert untouched_but_compiled(network)
        if step == 0:
            compiled = compiler.frame_count
    assert compiled == compiler.frame_count == 3  # with one tap, with two, with none


def untouched_but_compiled(network: nn.Module) -> bool:
    return all("forward" not in vars(module) for module in network.modules())


@pytest.mark.skipif(
    torch.__version__ < "2.15", reason="torch 2.11's compiler cannot trace the taps themselves; network.compile() works"
)
def test_a_compiled_step_may_contain_taps(compiler):
    network = SmallNet()
    taps = Taps(network, ["relu"])

    def step(image: Tensor) -> Tensor:
        outputs = taps(image)
        return F.cross_entropy(outputs.logits, torch.zeros(8, dtype=torch.int64)) + outputs.features["relu"].sum()

    compiled = torch.compile(step, backend=compiler, fullgraph=True)
    torch.manual_seed(1)
    for _ in range(3):
        image = torch.randn(8, 4)
        network.zero_grad()
        compiled(image).backward()
        by_compiled = network.inner["first"].weight.grad.clone()
        network.zero_grad()
        step(image).backward()
        torch.testing.assert_close(by_compiled, network.inner["first"].weight.grad)
    assert compiler.frame_count == 1
    assert untouched(network)
