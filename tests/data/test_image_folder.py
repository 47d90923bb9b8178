import json

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from PIL import Image

from kdlab.cli import main
from kdlab.data import ImageFolder
from kdlab.errors import IntegrityError, UsageError
from kdlab.methods import IndependentStudent
from kdlab.models import DigitsConv

RED, GREEN = (255, 0, 0), (0, 255, 0)
ORIENTATION = 0x0112  # EXIF
TURN_LEFT = 8  # the image is to be turned by 90 degrees against the clock


def halves(left, right, size=(8, 4)):
    """An image of this width and height, its left half of one colour and its right half of another."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2], pixels[:, size[0] // 2 :] = left, right
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    """Five images of each of two classes to train on, two to test on; of several sizes and formats."""
    for part, count in (("train", 5), ("test", 2)):
        for name, colour in (("apple", RED), ("pear", GREEN)):
            place = tmp_path / "own" / part / name
            place.mkdir(parents=True)
            for i in range(count):
                halves(colour, colour, (8 + i, 4)).save(place / f"{i}.{'png' if i % 2 else 'bmp'}")
    return tmp_path / "own"


def test_images_larger_than_the_memory_are_refused_before_one_is_read(folder, monkeypatch):
    data = ImageFolder(str(folder), image_size=1_000_000)
    monkeypatch.setattr(data, "_decode", lambda path: pytest.fail("was read"))
    with pytest.raises(
        UsageError, match=r"10 images of 1000000 x 1000000 pixels take 27,939\.7 GiB, but this machine has"
    ):
        data.setup("fit")


def test_a_run_is_not_continued_on_other_images(folder, fit, tmp_path):
    def train(**options):
        data = ImageFolder(str(folder), image_size=8, batch_size=2)
        fit(IndependentStudent(student=DigitsConv(in_channels=3, num_classes=2)), data, **options)

    def save(trainer, *_):
        trainer.save_checkpoint(tmp_path / "one.ckpt")

    train(max_epochs=1, callbacks=[LambdaCallback(on_train_end=save)])
    train(max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    halves(RED, GREEN).save(folder / "train" / "apple" / "0.bmp")
    with pytest.raises(IntegrityError, match="the run was started with other training images: they have changed since"):
        train(max_epochs=2, ckpt_path=tmp_path / "one.ckpt")


def test_classes_are_the_folders_and_images_become_squares(folder):
    data = ImageFolder(str(folder), image_size=6, val_fraction=0.2)
    assert (data.class_names, data.num_classes, data.image_shape) == (("apple", "pear"), 2, (3, 6, 6))
    assert (data.num_train_images, data.num_test_images) == (10, 4)
    assert (len(data.train_split), len(data.val_split)) == (8, 2)
    for split in (data.train_split, data.val_split, data.test_split):
        for image, label in zip(split.images, split.labels, strict=True):
            wanted = torch.tensor((RED, GREEN)[int(label)], dtype=torch.uint8)
            assert torch.equal(image, wanted[:, None, None].expand(3, 6, 6))


def test_what_is_kept_is_the_middle_and_it_is_upright(folder):
    exif = Image.Exif()
    exif[ORIENTATION] = TURN_LEFT
    halves(RED, GREEN, (4, 4)).save(folder / "test" / "apple" / "0.bmp.png", exif=exif)
    halves((0, 0, 255), GREEN, (16, 4)).save(folder / "test" / "apple" / "1.png")
    images = ImageFolder(str(folder), image_size=4).test_split.images
    turned, middle = images[1], images[2]  # by name: 0.bmp, 0.bmp.png, 1.png
    assert turned[0].tolist() == [[0] * 4] * 2 + [[255] * 4] * 2  # red was on the left, and is below now
    assert middle[2].tolist() == [[255, 255, 0, 0]] * 4  # columns 6 to 9 of 16


def test_grey_images_have_one_channel(folder):
    data = ImageFolder(str(folder), image_size=4, in_channels=1)
    assert data.image_shape == (1, 4, 4)
    assert set(data.train_split.images.unique().tolist()) == {76, 150}  # 0.299 and 0.587 of 255, as ITU-R 601 says


def test_the_fingerprint_is_of_the_pixels(folder):
    first = ImageFolder(str(folder), image_size=4).fingerprint()
    assert ImageFolder(str(folder), image_size=4, seed=1).fingerprint() == first
    halves(RED, GREEN).save(folder / "train" / "apple" / "1.png")
    assert ImageFolder(str(folder), image_size=4).fingerprint() != first


def test_a_damaged_image_is_named(folder):
    path = folder / "train" / "pear" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    data = ImageFolder(str(folder), image_size=4)
    with pytest.raises(IntegrityError, match=r"pear/1\.png is no readable image"):
        data.setup("fit")


def test_a_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(IntegrityError, match=r"train holds no folder of images for each class .*data\.data_dir"):
        ImageFolder(str(tmp_path))


def test_a_class_without_images_is_named(folder):
    (folder / "train" / "empty").mkdir()
    with pytest.raises(IntegrityError, match="empty"):
        ImageFolder(str(folder))


def test_a_class_that_is_never_tested_is_named(folder):
    (folder / "test" / "pear").rename(folder / "test" / "peach")
    with pytest.raises(IntegrityError, match="differ in the classes peach, pear"):
        ImageFolder(str(folder))


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"in_channels": 2}])
def test_other_sizes_and_channels_are_refused(folder, wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"data.{name} is"):
        ImageFolder(str(folder), **wrong)


def test_a_network_gets_the_number_of_classes_of_the_folder(folder, tmp_path):
    arguments = ["fit", "--config", "digits/independent", "--data", "ImageFolder", "--data.data_dir", str(folder),
                 "--data.image_size", "8", "--data.batch_size", "4", "--data.eval_batch_size", "4",
                 "--model.student", "kdlab.models.ResNet8x4", "--trainer.max_epochs", "1", "--profile", "false",
                 "--runs_dir", str(tmp_path / "runs")]  # fmt: skip
    assert main(arguments) == 0
    result = json.loads((tmp_path / "runs" / "digits" / "independent-seed0" / "result.json").read_text())
    assert (result["protocol"]["name"], result["protocol"]["n_tested"]) == ("ImageFolder", 4)
    assert len(result["student"]["confusion_matrix"]) == 2
