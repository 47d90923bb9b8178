"""What every network of kdlab's own promises: shapes, gradients, features that can be tapped, clear refusals."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import nn

from kdlab import models
from kdlab.errors import UsageError

CIFAR_NETS: dict[str, Callable[..., nn.Module]] = {
    "CifarResNet": lambda **sizes: models.CifarResNet(depth=8, widths=(4, 4, 8, 8), **sizes),
    "ResNet8x4": models.ResNet8x4,
    "ResNet20": models.ResNet20,
    "ResNet32": models.ResNet32,
    "ResNet32x4": models.ResNet32x4,
    "ResNet44": models.ResNet44,
    "ResNet50": models.ResNet50,
    "ResNet56": models.ResNet56,
    "ResNet110": models.ResNet110,
    "WRN": lambda **sizes: models.WRN(depth=10, width=2, dropout=0.1, **sizes),
    "VGG8": models.VGG8,
    "VGG11": models.VGG11,
    "VGG13": models.VGG13,
    "VGG16": models.VGG16,
    "VGG19": models.VGG19,
    "VGG11MLPHead": models.VGG11MLPHead,
    "MobileNetV2": models.MobileNetV2,
    "MobileNetV2HighRes": models.MobileNetV2HighRes,
    "ShuffleNetV1": models.ShuffleNetV1,
    "ShuffleNetV2": models.ShuffleNetV2,
    "DigitsConv": models.DigitsConv,
}
MNIST_NETS: dict[str, Callable[..., nn.Module]] = {
    "MNISTWideConv": models.MNISTWideConv,
    "MNISTNarrowConv": models.MNISTNarrowConv,
    "MNISTPooledConv": models.MNISTPooledConv,
    "MNISTPerceptron": models.MNISTPerceptron,
}
OWN_NETS = CIFAR_NETS | MNIST_NETS


def test_every_own_network_is_tested_here():
    assert set(OWN_NETS) == set(models.__all__) - {"TimmModel", "TorchvisionModel", "Normalized"}


@pytest.mark.parametrize("name", OWN_NETS)
def test_training_step_gives_finite_logits_and_a_gradient_to_every_parameter(name: str):
    torch.manual_seed(0)
    size = 28 if name in MNIST_NETS else 16
    network = OWN_NETS[name](num_classes=7, in_channels=2)
    logits = network(torch.randn(2, 2, size, size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


# One of each family and pooling; the others only repeat their blocks.
@pytest.mark.parametrize(
    "name", ["CifarResNet", "WRN", "VGG8", "VGG11MLPHead", "MobileNetV2", "ShuffleNetV1", "DigitsConv"]
)
def test_networks_of_the_benchmarks_take_images_of_any_size(name: str):
    network = CIFAR_NETS[name](num_classes=3, in_channels=1).eval()
    with torch.no_grad():
        for height, width in ((8, 8), (28, 21)):
            assert network(torch.randn(1, 1, height, width)).shape == (1, 3)


@pytest.mark.parametrize("name", OWN_NETS)
def test_no_activation_changes_a_tapped_feature_in_place(name: str):
    with torch.device("meta"):  # structure only
        network = OWN_NETS[name](num_classes=3, in_channels=1)
    assert not [path for path, module in network.named_modules() if getattr(module, "inplace", False)]


def test_two_networks_with_one_seed_start_equal_and_with_two_seeds_differ():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in models.ResNet20().parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (models.ResNet8x4(), {"layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8), "pool": (256,)}),
        (models.WRN(16, 2), {"layer1": (32, 32, 32), "layer2": (64, 16, 16), "relu": (128, 8, 8), "pool": (128,)}),
        (models.VGG8(), {"layer1": (64, 32, 32), "layer3": (256, 8, 8), "layer4": (512, 4, 4), "layer5": (512, 4, 4)}),
        (models.VGG11MLPHead(), {"layer4": (512, 4, 4), "layer5": (512, 2, 2), "pool": (512,)}),
        (models.MobileNetV2(), {"layer2": (12, 16, 16), "layer5": (48, 4, 4), "layer7": (160, 2, 2), "pool": (1280,)}),
        (models.MobileNetV2HighRes(), {"layer2": (24, 32, 32), "layer5": (72, 8, 8), "layer7": (240, 4, 4)}),
        (models.ShuffleNetV1(), {"layer1": (240, 16, 16), "layer2": (480, 8, 8), "layer3": (960, 4, 4)}),
        (models.ShuffleNetV2(), {"layer1": (116, 16, 16), "layer2": (232, 8, 8), "head": (1024, 4, 4)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_stages_are_modules_with_the_shapes_that_the_docstring_names(
    network: nn.Module, shapes: dict[str, tuple[int, ...]]
):
    seen: dict[str, tuple[int, ...]] = {}
    for path in shapes:
        network.get_submodule(path).register_forward_hook(
            lambda module, args, output, path=path: seen.update({path: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    assert seen == shapes


def test_shuffle_interleaves_the_groups():
    from kdlab.models.shufflenet import shuffle_channels

    channels = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle_channels(channels, groups=2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(("depth", "fix"), [(21, "depth: 20"), (18, "depth: 20"), (5, "depth: 8"), (2, "depth: 8")])
def test_resnet_of_impossible_depth_is_refused_with_a_possible_one(depth: int, fix: str):
    with pytest.raises(UsageError, match=f"depth is {depth}.*6n \\+ 2.*{fix}"):
        models.CifarResNet(depth=depth)


@pytest.mark.parametrize(("depth", "fix"), [(17, "depth: 16"), (4, "depth: 10")])
def test_wide_resnet_of_impossible_depth_is_refused_with_a_possible_one(depth: int, fix: str):
    with pytest.raises(UsageError, match=f"depth is {depth}.*6n \\+ 4.*{fix}"):
        models.WRN(depth=depth, width=1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DigitsConv", {"num_classes": 10, "in_channels": 1, "widths": [32, 64, 64]}),
        ("VGG11MLPHead", {"width": 4, "hidden": [32, 16]}),
        ("WRN", {"depth": 10, "width": 1}),
        ("ResNet20", {}),
    ],
)
def test_network_is_built_from_a_config(name: str, arguments: dict[str, object]):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "student")
    config = parser.parse_object({"student": {"class_path": f"kdlab.models.{name}", "init_args": arguments}})
    assert type(parser.instantiate(config).student).__name__ == name


def test_models_import_neither_lightning_nor_the_slow_libraries_at_the_top():
    for file in Path(models.__file__).parent.glob("*.py"):
        imported: set[str] = set()
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
        assert not imported & {"lightning", "timm", "torchvision", "huggingface_hub"}, file.name
