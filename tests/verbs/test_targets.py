"""Every way to name a network, and every way to get it wrong."""

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from kdlab.errors import IntegrityError, UsageError
from kdlab.verbs.targets import Images, find_target

CIFAR100 = Images((3, 32, 32), 100)
DIGITS = Images((1, 8, 8), 10)


def logits(target):
    with torch.no_grad():
        return target.network(torch.zeros(2, *target.image_shape)).shape


def parameters(target):
    return sum(p.numel() for p in target.network.parameters())


# text -> parameters on CIFAR-100, from the papers' reference code
CLASSES = {
    "ResNet20": 278_324,
    "kdlab.models.ResNet20": 278_324,
    "ResNet8x4()": 1_233_540,
    "WRN(depth=16, width=2)": 703_284,
    "configs/models/resnet8x4.yaml": 1_233_540,
}


@pytest.mark.parametrize("text", CLASSES)
def test_a_class_or_model_file_gets_the_classes_and_channels_of_the_images(text):
    target = find_target(text, CIFAR100)
    assert parameters(target) == CLASSES[text]
    assert logits(target) == (2, 100)
    assert not target.network.training


def test_arguments_of_a_call_may_be_mappings_with_commas():
    text = "TimmModel(name=vit_tiny_patch16_224, options={img_size: 32, patch_size: 4, depth: 2})"
    target = find_target(text, CIFAR100)
    assert target.name == text
    assert len(target.network.network.blocks) == 2
    assert logits(target) == (2, 100)


def test_what_is_asked_for_in_a_call_is_kept():
    assert logits(find_target("ResNet20(num_classes=7)", CIFAR100)) == (2, 7)


def test_a_model_file_may_be_an_ensemble_whose_members_get_the_classes_too(tmp_path):
    member = {"class_path": "kdlab.models.DigitsConv", "init_args": {"widths": [2, 3, 4]}}
    content = {"class_path": "kdlab.models.ensemble.NetworkEnsemble", "init_args": {"networks": [member, member]}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(content))
    target = find_target(str(tmp_path / "two.yaml"), Images((1, 8, 8), 5))
    assert logits(target) == (2, 5)
    assert len(target.network.networks) == 2


def test_a_config_or_run_brings_its_own_images(workplace):
    for text in ("digits/logit_matching", "runs/digits/logit_matching-seed0"):
        target = find_target(text, CIFAR100)
        assert (target.name, target.image_shape, parameters(target)) == (text, (1, 8, 8), 2410)
    assert parameters(find_target("digits/sub_student_ensemble", CIFAR100)) == 4 * 613


def test_a_file_of_weights_means_the_run_that_it_lies_in(workplace, tmp_path):
    for file in ("student.safetensors", "checkpoints/best.safetensors"):
        assert parameters(find_target(f"runs/digits/independent-seed0/{file}", CIFAR100)) == 2410
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(
        UsageError, match=r"weights\.pt is no file of weights .* in a run's folder, so its network is not"
    ):
        find_target(str(tmp_path / "weights.pt"), CIFAR100)


def test_the_weights_that_are_measured_are_those_of_the_file_that_was_named(copied):
    run = copied("independent-seed0")
    student = load_file(run / "student.safetensors")
    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in student.items()}
    torch.save(
        {"state_dict": {f"student.{name}": tensor for name, tensor in other.items()}},
        run / "checkpoints" / "other.ckpt",
    )
    for text, expected in (
        (run, student),
        (run / "student.safetensors", student),
        (run / "checkpoints" / "other.ckpt", other),
    ):
        found = find_target(str(text), CIFAR100).network.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_file_of_a_run_that_does_not_exist_or_is_damaged_is_an_error(copied):
    run = copied("independent-seed0")
    with pytest.raises(IntegrityError, match=r"nothing\.ckpt does not exist"):
        find_target(str(run / "nothing.ckpt"), CIFAR100)
    (run / "half.safetensors").write_bytes(b"half")
    with pytest.raises(IntegrityError, match=r"half\.safetensors is damaged"):
        find_target(str(run / "half.safetensors"), CIFAR100)


def test_a_run_that_has_not_ended_is_profiled_by_its_architecture_and_says_so(copied, caplog):
    run = copied("independent-seed0")
    (run / "student.safetensors").unlink()
    assert parameters(find_target(str(run), CIFAR100)) == 2410
    assert f"the run in {run} has not ended; its network is profiled with random weights" in caplog.text


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"is no run: it holds no config\.yaml"):
        find_target(str(tmp_path), CIFAR100)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise RuntimeError('no such machine\\nand more')", "RuntimeError: no such machine"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("import sys; sys.exit('usage: something')", "SystemExit: usage: something"),
        ("def broken(:", "SyntaxError: "),
    ],
)
def test_a_module_of_ones_own_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, content, reason):
    (tmp_path / "own_broken.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as caught:
        find_target("own_broken.Net", CIFAR100)
    assert str(caught.value).startswith(f"own_broken cannot be imported: {reason}")
    assert str(caught.value).endswith("; mend it, or name another class")
    assert "\n" not in str(caught.value)


def test_the_images_of_a_data_set_are_known_without_reading_it():
    assert Images.of_data("MNIST") == Images((1, 28, 28), 10)
    with pytest.raises(UsageError, match="there is no data set CIFAR1000; did you mean CIFAR100 or CIFAR10"):
        Images.of_data("CIFAR1000")
    with pytest.raises(UsageError, match="there is no data set Mixup"):
        Images.of_data("Mixup")


class Pair(nn.Module):
    def forward(self, image):
        return image, image


MISTAKES = {
    "ResNet21": "ResNet21 is no run's folder, config, model file or network; did you mean ResNet",
    "digits/logit_matchin": "digits/logit_matchin is no run's folder, config",
    "kdlab.models.Nothing": "kdlab.models.Nothing is no run's folder",
    "nowhere.Network": "nowhere.Network is no run's folder",
    "kdlab.nowhere.Network": "kdlab.nowhere.Network is no run's folder",
    "ResNet20(depth=3)": "ResNet20 has no depth",
    "ResNet20(3)": r"ResNet20\(3\): 3 has no name; write arguments as name=value",
    "WRN(depth=x)": "depth: expected int; given x",
    "WRN(depth=16)": r"WRN\(depth=16\): width missing, but required; give it a value$",
    "TimmModel(name=vit_tyni)": "timm has no classifier called 'vit_tyni'",
    "TimmModel(name=vit_tiny_patch16_224)": r"takes images of \[224, 224\] pixels but got \[32, 32\]",
    "configs/trainers/cifar.yaml": "is no config and no model file",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_target_that_cannot_be_is_one_line(text):
    with pytest.raises(UsageError, match=MISTAKES[text]) as caught:
        find_target(text, CIFAR100)
    assert "\n" not in str(caught.value)


def test_a_network_for_other_images_is_answered_with_the_option():
    with pytest.raises(UsageError, match=r"squeezenet1_0\) cannot read 3x8x8 images .*; set --data or --image_shape"):
        find_target("TorchvisionModel(name=squeezenet1_0)", Images((3, 8, 8), 10))


def test_a_network_without_logits_is_refused(monkeypatch):
    monkeypatch.setattr("kdlab.models.ResNet20", Pair)
    monkeypatch.setattr("kdlab.verbs.targets._network", lambda *_: Pair())
    with pytest.raises(UsageError, match=r"ResNet20 returns tuple, but a classifier returns logits \[B, K\]"):
        find_target("ResNet20", DIGITS)
