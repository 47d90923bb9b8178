"""What is collected of a run: logits in the order of the split, features of layers that can be compared."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from kdlab.errors import UsageError
from kdlab.models import ResNet20, TimmModel
from kdlab.verbs import answers
from kdlab.verbs.answers import Layers, choose_layers, collect, stages
from kdlab.verbs.loaded import load_config, load_run
from kdlab.weights import digest

CPU = torch.device("cpu")
NONE = Layers((), ())


@pytest.fixture
def run(workplace):
    return load_run("runs/digits/logit_matching-seed0")


def directly(network, run, images):
    """The network's answers to a whole split at once, normalised by the formula."""
    with torch.no_grad():
        return network((images / 255 - run.data.mean[0]) / run.data.std[0])


@pytest.mark.parametrize(("split", "images"), [("test", 360), ("val", 144), ("train", 1293)])
def test_every_image_of_a_split_is_answered_in_its_order(run, split, images):
    own = getattr(run.data, f"{split}_split")
    found = collect(run, split, run.teacher(), NONE, CPU)
    assert len(own) == len(found.student_logits) == images
    # float32: other batch sizes sum in another order
    torch.testing.assert_close(
        found.student_logits, directly(run.method.student, run, own.images), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        found.teacher_logits, directly(run.teacher().network, run, own.images), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(found.labels, own.clean_labels)
    assert torch.equal(found.index, own.index)
    assert (found.training_labels is None) == (split != "train")
    assert found.class_names == tuple("0123456789")


def test_the_labels_trained_on_carry_the_noise_and_the_true_ones_do_not(run):
    found = collect(run, "train", None, NONE, CPU)
    assert (found.training_labels != found.labels).sum() == len(run.data.train_split.noisy) == 129  # a tenth of 1293
    assert found.teacher_logits is None


def test_an_empty_split_is_an_error(copied):
    run = load_run(copied("independent-seed0"))
    run.data.val_fraction = 0.0
    with pytest.raises(
        UsageError, match=r"the val split of independent-seed0 is empty \(val_fraction 0\); name another"
    ):
        collect(run, "val", None, NONE, CPU)


def test_features_are_those_of_the_named_layers_for_the_first_images(run, monkeypatch):
    teacher, layers = run.teacher(), Layers(("hidden",), ("fc",))
    monkeypatch.setattr(answers, "MOST_FEATURE_IMAGES", 100)
    found = collect(run, "test", teacher, layers, CPU)
    assert {name: feature.shape for name, feature in found.student_features.items()} == {"hidden": (100, 32)}
    assert {name: feature.shape for name, feature in found.teacher_features.items()} == {"fc": (100, 10)}
    torch.testing.assert_close(found.teacher_features["fc"], found.teacher_logits[:100])
    with torch.no_grad():
        logits = run.method.student.classifier(found.student_features["hidden"])
    torch.testing.assert_close(logits, found.student_logits[:100])


def test_features_stop_where_memory_would(run, monkeypatch):
    monkeypatch.setattr(
        answers, "FEATURE_BYTES", 7 * 32 * 4
    )  # of seven images of the student's layer, 22 of the teacher's
    found = collect(run, "test", run.teacher(), Layers(("hidden",), ("fc",)), CPU)
    assert len(found.student_features["hidden"]) == len(found.teacher_features["fc"]) == 7
    assert len(found.student_logits) == 360


class Awkward(nn.Module):
    """A layer that runs twice, one that is overwritten, one without parameters, and one to tap."""

    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.twice = nn.Linear(64, 64)
        self.overwritten = nn.Linear(64, 64)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, image):
        return self.fc(self.relu(self.overwritten(self.twice(self.twice(self.flatten(image))))))


def test_stages_are_the_parts_with_parameters_that_can_be_tapped(run):
    assert stages(run.method.student, run) == ("hidden", "classifier")
    assert stages(ResNet20(in_channels=1), run) == ("conv1", "bn1", "layer1", "layer2", "layer3", "fc")
    assert stages(Awkward(), run) == ("fc",)


def test_stages_leave_the_network_as_it_is_also_where_it_cannot_be_copied(run):
    network = ResNet20(in_channels=1)
    prune.random_unstructured(network.fc, "weight", amount=0.5)  # its weight is computed, which deepcopy refuses
    before = digest(network)
    assert stages(network, run)[-1] == "fc"
    assert digest(network) == before


def test_stages_of_a_wrapped_network_are_those_inside(run):
    wrapped = TimmModel("resnet10t", 10, 1)
    found = stages(wrapped, run)
    assert {"network.layer1", "network.layer4", "network.fc"} <= set(found)
    assert all(name.count(".") == 1 for name in found)


def test_layers_are_those_asked_for_else_those_of_the_method_else_stages(run, workplace):
    teacher = run.teacher()
    assert choose_layers(run, teacher).student == ("hidden", "classifier")
    assert choose_layers(run, teacher, ["classifier", "fc"]) == Layers(("classifier",), ("fc",))
    hints = load_config("digits/hint_transfer")
    hints.method.teacher.use_untrained()
    tapped = choose_layers(hints, hints.method.teacher)
    assert tapped == Layers(hints.method.taps.layers, hints.method.teacher.taps.layers)
    assert tapped.student
    assert choose_layers(run, None) == NONE


def test_layers_that_are_not_there_are_errors(run):
    with pytest.raises(UsageError, match="MNISTPerceptron has no layer 'classifer'; did you mean classifier"):
        choose_layers(run, run.teacher(), ["classifer"])
    with pytest.raises(UsageError, match=r"none of --layers is a layer of the teacher; it has .*fc"):
        choose_layers(run, run.teacher(), ["classifier"])
    with pytest.raises(
        UsageError, match="logit_matching-seed0 has no teacher with layers to compare; leave --layers out"
    ):
        choose_layers(run, None, ["classifier"])
