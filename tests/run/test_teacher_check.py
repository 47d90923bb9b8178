import logging
import math

import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from kdlab.data import Digits
from kdlab.methods import IndependentStudent, LogitMatching
from kdlab.models import DigitsConv
from kdlab.run.teacher_check import TeacherCheck
from kdlab.teachers import FrozenTeacher
from kdlab.weights import digest

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals


class Stub(nn.Module):
    """Answers each image by itself: image -> logits."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, image):
        return torch.stack([self.answer(picture) for picture in image])


def one_hot(label, size=8.0):
    return size * torch.nn.functional.one_hot(torch.as_tensor(label), 10).float()


class Rows(Logger):
    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_, **__):
        pass


@pytest.fixture
def check(fit, caplog):
    """Check a teacher that answers as the given function; return the report, the log lines and the logged rows."""

    def run(answer, data=None, **arguments):
        method = LogitMatching(student=DigitsConv(), teacher=FrozenTeacher(Stub(answer)))
        callback, rows = TeacherCheck(), Rows()
        with caplog.at_level(logging.INFO, "kdlab"):
            fit(method, data, callbacks=[callback], logger=rows, max_epochs=1, limit_train_batches=1, **arguments)
        records = [record for record in caplog.records if record.name == "kdlab.run.teacher_check"]
        return callback.report, records, rows.rows

    return run


def warnings_in(records):
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


@pytest.fixture(scope="module")
def labels():
    """The label of each image of the training file, by its bytes."""
    data = Digits()
    splits = data.train_split, data.val_split
    return {
        image.numpy().tobytes(): int(label)
        for split in splits for image, label in zip(split.images, split.labels, strict=True)
    }  # fmt: skip


@pytest.fixture
def good(labels):
    """Right on every image, and sure of it."""

    def answer(image):
        pixels = (image * 255).round().to(torch.uint8)
        return one_hot(labels[pixels.numpy().tobytes()] if pixels.any() else 0)  # the base class tries a blank image

    return answer


def test_a_good_teacher_is_reported_without_a_warning(check, good):
    report, records, rows = check(good)
    assert not warnings_in(records)
    assert report["teacher/val_accuracy"] == 1.0
    assert report["teacher/val_largest_class"] < 0.15  # ten classes of about 14 images
    # softmax of (8, 0 x 9): 9 e^-8 of the mass is elsewhere
    z = math.exp(8) + 9
    p, q = math.exp(8) / z, 1 / z
    assert report["teacher/val_entropy"] == pytest.approx(-p * math.log(p) - 9 * q * math.log(q), rel=1e-6)
    assert (0, report) in rows
    assert "teacher on 144 validation images: accuracy 1.0000" in records[0].getMessage()


def test_a_collapsed_teacher_is_called_out(check):
    report, records, _ = check(lambda image: one_hot(3))
    assert report["teacher/val_largest_class"] == 1.0
    (text,) = warnings_in(records)
    assert "the teacher has collapsed: it gives one class to 100% of the images" in text
    assert "train the teacher again" in text


def test_a_teacher_that_gives_most_images_one_class_is_called_out_though_it_is_better_than_guessing(check, good):
    report, records, _ = check(lambda image: one_hot(3) if image[0, 3, 3] > 0.3 else good(image))
    assert report["teacher/val_accuracy"] > 0.2
    assert 0.5 < report["teacher/val_largest_class"] < 1
    assert "has collapsed" in warnings_in(records)[0]


def test_a_guessing_teacher_is_called_out(check):
    report, records, _ = check(lambda image: one_hot(int(1e6 * image.double().std()) % 10))
    assert report["teacher/val_accuracy"] < 0.2
    (text,) = warnings_in(records)
    assert "no better than guessing" in text
    assert "10 classes" in text


def test_a_teacher_with_its_classes_in_another_order_is_called_out(check, good):
    _, records, _ = check(lambda image: good(image).roll(1))
    assert "on these classes in this order" in warnings_in(records)[0]


def test_a_teacher_with_uniform_outputs_is_called_out_though_its_order_is_right(check, good):
    report, records, _ = check(lambda image: 1e-3 * good(image))
    assert report["teacher/val_accuracy"] == 1.0
    assert report["teacher/val_entropy"] == pytest.approx(math.log(10), abs=1e-4)
    (text,) = warnings_in(records)
    assert "uniform" in text


def test_without_a_validation_split_the_training_images_are_taken_and_that_is_said(check, good):
    report, records, _ = check(good, Digits(val_fraction=0.0, train_per_class=10, batch_size=50))
    assert report["teacher/val_accuracy"] == 1.0
    assert "training images" in records[0].getMessage()


def test_the_check_never_reads_the_test_split(check, good, monkeypatch):
    def refuse(*_):
        pytest.fail("the test split was read")

    monkeypatch.setattr(Digits, "test_dataloader", refuse)
    monkeypatch.setattr(Digits, "test_split", property(refuse))
    check(good)


def test_the_check_leaves_teacher_student_and_random_numbers_alone(fit):
    def train(callbacks):
        torch.manual_seed(0)
        method = LogitMatching(student=DigitsConv(), teacher=FrozenTeacher(DigitsConv()))
        before = digest(method.teacher)
        fit(method, callbacks=callbacks, max_epochs=1)
        assert digest(method.teacher) == before
        return digest(method.student)

    assert train([TeacherCheck()]) == train([])


def test_a_method_without_a_teacher_is_not_checked(fit):
    callback = TeacherCheck()
    fit(IndependentStudent(student=DigitsConv()), callbacks=[callback], max_epochs=1)
    assert callback.report == {}
