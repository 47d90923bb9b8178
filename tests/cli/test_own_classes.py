"""What is wrong with a user's own class is said with file and line, and is no bug of kdlab."""

import sys
from pathlib import Path

import pytest

from kdlab.cli import main

OWN = """
import torch
from torch import nn
from kdlab.data import Augmentation, ImageData
from kdlab.data.files import content_digest
from kdlab.losses import LogitLoss
from kdlab.methods import IndependentStudent
from kdlab.models import DigitsConv
from kdlab.teachers import Teacher
from kdlab.types import Outputs


class Loss(LogitLoss):
    def forward(self, student, teacher, labels=None):
        return student.softmax(dim=5).sum()


class NoName(LogitLoss):
    def forward(self, student, teacher, labels=None):
        return nothing


class OfShape(LogitLoss):
    def forward(self, student, teacher, labels=None):
        return (student - teacher) ** 2


class Nothing(LogitLoss):
    def forward(self, student, teacher, labels=None):
        pass


class Number(LogitLoss):
    def forward(self, student, teacher, labels=None):
        return (student - teacher).square().mean().item()


class Exit(LogitLoss):
    def forward(self, student, teacher, labels=None):
        raise SystemExit(0)


class Constructor(LogitLoss):
    def __init__(self):
        super().__init__()
        self.weight = {}["weight"]

    def forward(self, student, teacher, labels=None):
        return student.sum()


class NoTerm(IndependentStudent):
    def losses(self, student, teacher, batch):
        return {}


class FloatTerm(IndependentStudent):
    def losses(self, student, teacher, batch):
        return {"label": 1.0}


class NewTerm(IndependentStudent):
    def losses(self, student, teacher, batch):
        terms = super().losses(student, teacher, batch)
        return terms | ({"late": student.logits.mean()} if self.global_step else {})


class Detached(DigitsConv):
    def forward(self, image):
        return super().forward(image).detach()


class FewerRows(DigitsConv):
    def forward(self, image):
        return super().forward(image)[1:]


class OneRow(Teacher):
    def forward(self, batch):
        return Outputs(batch.image.new_zeros(1, 10))


class Raw(Teacher):
    def forward(self, batch):
        return batch.image.new_zeros(len(batch.label), 10)


class NoAnswer(Teacher):
    def forward(self, batch):
        pass


class Forward(DigitsConv):
    def forward(self, image):
        return self.fc(image)


class Misspelt(DigitsConv):
    def forward(self, image):
        return self.fcc(image)


class Tuple(DigitsConv):
    def forward(self, image):
        return super().forward(image), image


class Size(DigitsConv):
    def __init__(self, width=-3, **kwargs):
        super().__init__()
        self.extra = nn.Linear(4, width)


class Odd(Augmentation):
    num_views = 2
    def forward(self, image, view):
        raise RuntimeError("no such view")


class Data(ImageData):
    num_classes, in_channels, image_size = 2, 1, 8
    class_names = ("even", "odd")
    num_train_images, num_test_images = 200, 20
    default_mean, default_std = (0.0,), (1.0,)

    def read(self, part):
        n = self.num_train_images if part == "train" else self.num_test_images
        return torch.zeros(n, 1, 8, 8, dtype=torch.uint8), torch.arange(n) % 2, "sha"


class Labels(Data):
    def read(self, part):
        images, labels, digest = super().read(part)
        return images, labels + 1, digest


class TestLabels(Labels):
    def read(self, part):
        return (Data if part == "train" else Labels).read(self, part)


class Large(Data):
    def read(self, part):
        images, labels, digest = super().read(part)
        return nn.functional.pad(images, (1, 1, 1, 1)), labels, digest


class Coloured(Data):
    def read(self, part):
        images, labels, digest = super().read(part)
        return images.expand(-1, 3, -1, -1), labels, digest


class Floating(Data):
    def read(self, part):
        images, labels, digest = super().read(part)
        return images.float(), labels, digest


class Fewer(Data):
    def read(self, part):
        images, labels, digest = super().read(part)
        return images, labels[1:], digest


class Empty(Data):
    def read(self, part):
        images, labels, digest = super().read(part)
        return images[:0], labels[:0], content_digest(images[:0], labels[:0])


class Unreadable(Data):
    def read(self, part):
        return open_it(self.data_dir)


class Pair(Data):
    def read(self, part):
        return super().read(part)[:2]


class Silent(ImageData):
    num_classes, in_channels = 2, 1

    def read(self, part):
        return Data().read(part)
"""

TEACHER = ["--model.teacher.checkpoint", "null", "--model.teacher.recipe", "null"]
LOSS = ["--config", "digits/logit_matching", *TEACHER, "--model.temperature", "null"]
NETWORK = ["--config", "digits/independent"]
TAUGHT = ["--config", "digits/logit_matching"]
# class, the command before it, the exit code, what is said
WRONG = {
    "Loss": ([*LOSS, "--model.logit_loss"], 2, "IndexError: Dimension out of range"),
    "NoName": ([*LOSS, "--model.logit_loss"], 2, "NameError: name 'nothing' is not defined"),
    "OfShape": ([*LOSS, "--model.logit_loss"], 2, "what OfShape returns has shape [64, 10], but it must be a scalar tensor"),
    "Exit": ([*LOSS, "--model.logit_loss"], 2, "SystemExit: 0 ("),
    "Nothing": ([*LOSS, "--model.logit_loss"], 2, "what Nothing returns is a NoneType, but it must be a scalar tensor"),
    "Number": ([*LOSS, "--model.logit_loss"], 2, "what Number returns is a float, but it must be a scalar tensor; take"),
    "FloatTerm": ([*NETWORK, "--model"], 2, "FloatTerm: the label term is a float, but it must be a scalar tensor"),
    "NewTerm": ([*NETWORK, "--model"], 2, "late_loss, loss, accuracy, but were label_loss, loss, accuracy before; return"),
    "Detached": ([*NETWORK, "--model.student"], 2, "IndependentStudent: no term of the loss has a gradient"),
    "FewerRows": ([*NETWORK, "--model.student"], 2, "FewerRows returns [1, 10] for 2 images, but a classifier returns a row"),
    "OneRow": ([*TAUGHT, "--model.teacher"], 2, "the teacher returns [1, 10] for 2 images, but a classifier returns a row"),
    "Raw": ([*TAUGHT, "--model.teacher"], 2, "the teacher returns a Tensor, but a teacher answers with kdlab.types.Outputs"),
    "NoAnswer": ([*TAUGHT, "--model.teacher"], 2, "the teacher returns a NoneType, but a classifier returns logits"),
    "Empty": ([*NETWORK, "--data"], 4, "Empty.train holds images [0, 1, 8, 8] torch.uint8, expected [200, 1, 8, 8]"),
    "Constructor": ([*LOSS, "--model.logit_loss"], 2, "KeyError: 'weight'"),
    "NoTerm": ([*NETWORK, "--model"], 2, "NoTerm.losses returned no term"),
    "Forward": ([*NETWORK, "--model.student"], 2, "Forward cannot read 1x8x8 images"),
    "Misspelt": ([*NETWORK, "--model.student"], 2, "has no attribute 'fcc'"),
    "Tuple": ([*NETWORK, "--model.student"], 2, "Tuple returns a tuple, but a classifier returns logits [B, K]"),
    "Size": ([*NETWORK, "--model.student"], 2, "negative dimension -3"),
    "Odd": ([*NETWORK, "--data.augmentation"], 2, "RuntimeError: no such view"),
    "Labels": ([*NETWORK, "--data"], 4, "Labels.train has labels 1 ... 2, expected 0 ... 1; mend read"),
    "TestLabels": ([*NETWORK, "--data"], 4, "TestLabels.test has labels 1 ... 2, expected 0 ... 1; mend read"),
    "Large": ([*NETWORK, "--data"], 4, "Large.train holds images [200, 1, 10, 10] torch.uint8, expected [200, 1, 8, 8]"),
    "Coloured": ([*NETWORK, "--data"], 4, "Coloured.train holds images [200, 3, 8, 8] torch.uint8, expected [200, 1, 8, 8]"),
    "Floating": ([*NETWORK, "--data"], 4, "holds images [200, 1, 8, 8] torch.float32, expected [200, 1, 8, 8] torch.uint8"),
    "Fewer": ([*NETWORK, "--data"], 4, "Fewer.train holds labels [199] torch.int64, expected [200]"),
    "Unreadable": ([*NETWORK, "--data"], 2, "NameError: name 'open_it' is not defined"),
    "Pair": ([*NETWORK, "--data"], 2, "Pair.read('train') returned Tensor, Tensor, expected images [N, C, H, W] and"),
    "Silent": ([*NETWORK, "--data"], 2, "Silent does not say its image_size, class_names, num_train_images, num_test_images,"),
}  # fmt: skip
IN_THE_FIRST_STEPS = (
    "Loss", "NoName", "OfShape", "Exit", "Nothing", "Number", "FloatTerm", "NewTerm", "Detached", "NoTerm", "Odd",
)  # fmt: skip
# they come out in kdlab's own checks, which name the class
WITHOUT_LINE = (
    "OfShape",
    "Nothing",
    "Number",
    "FloatTerm",
    "NewTerm",
    "Detached",
    "FewerRows",
    "OneRow",
    "Raw",
    "NoAnswer",
    "Empty",
    "NoTerm",
    "Tuple",
    "Labels",
    "TestLabels",
    "Large",
    "Coloured",
    "Floating",
    "Fewer",
    "Pair",
    "Silent",
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's, which configs may name as ``own_classes.NAME``."""
    path = tmp_path / "own_classes.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_classes", raising=False)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_in_a_class_of_ones_own_is_named_with_its_line(
    name: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, expected = WRONG[name]
    runs = tmp_path / "runs"
    assert main(["fit", *arguments, f"own_classes.{name}", "--runs_dir", str(runs)]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines[-1].startswith("kdlab: error: ")
    assert expected in lines[-1]
    assert "bug of kdlab" not in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert (f"{own}, line " in lines[-1]) == (name not in WITHOUT_LINE)
    if name not in IN_THE_FIRST_STEPS:
        assert not runs.exists()


def test_the_line_is_that_of_the_mistake(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *LOSS, "--model.logit_loss", "own_classes.NoName", "--runs_dir", str(tmp_path / "runs")])
    line = OWN.splitlines().index("        return nothing") + 1
    assert (
        f"NameError: name 'nothing' is not defined ({own}, line {line}, in forward); mend it there"
        in capsys.readouterr().err
    )


def test_the_traceback_is_there_for_who_asks(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDLAB_DEBUG", "1")
    main(["fit", *LOSS, "--model.logit_loss", "own_classes.NoName", "--runs_dir", str(tmp_path / "runs")])
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "return nothing" in err


def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text("x = 1\ny = x / 0\n")
    assert main(["fit", *NETWORK, "--model.student", "own_classes.Net", "--runs_dir", str(tmp_path / "runs")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "division by zero" in last
    assert "own_classes" in last
