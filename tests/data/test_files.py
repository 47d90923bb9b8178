import os

import pytest
import torch
from safetensors.torch import save_file

from kdlab.data.files import ExpectedSplit, content_digest, read_split, write_split
from kdlab.errors import IntegrityError

EXPECTED = ExpectedSplit(count=20, image_shape=(3, 4, 4), num_classes=5)


def tensors(count=20, num_classes=5):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": torch.arange(count) % num_classes}


@pytest.fixture
def path(tmp_path):
    write_split(tmp_path / "train.safetensors", tensors())
    return tmp_path / "train.safetensors"


def expect_error(path, message, expected=EXPECTED):
    with pytest.raises(IntegrityError, match=message) as caught:
        read_split(path, expected)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_was_written_is_read_with_its_digest(path):
    images, labels, digest = read_split(path, EXPECTED)
    assert torch.equal(images, tensors()["images"])
    assert torch.equal(labels, tensors()["labels"])
    assert digest == content_digest(images, labels)


def test_writing_leaves_nothing_but_the_file(path):
    assert [file.name for file in path.parent.iterdir()] == ["train.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_old_file_and_no_other(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_split(path, tensors(10))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["train.safetensors"]


def test_a_missing_file_is_named(tmp_path):
    expect_error(tmp_path / "train.safetensors", "does not exist, expected 20 images; check data.data_dir")


def test_a_truncated_file_is_found_wherever_it_was_cut(path):
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        expect_error(path, "is no readable safetensors file.*delete the file")


def test_no_flipped_bit_reaches_the_pixels_or_labels(path):
    content, found = path.read_bytes(), 0
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            images, labels, _ = read_split(path, EXPECTED)
        except IntegrityError:
            found += 1
        else:  # a letter of a name in the header that nobody reads
            assert torch.equal(images, tensors()["images"])
            assert torch.equal(labels, tensors()["labels"])
    assert found > 0.97 * len(range(0, len(content), 7))


def test_a_flipped_bit_is_found_by_the_known_digest_where_the_header_has_none(path):
    known = ExpectedSplit(20, (3, 4, 4), 5, content_digest(**tensors()))
    save_file(tensors(), path)
    read_split(path, known)
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)
    expect_error(path, f"is damaged: its content has SHA-256 .* expected {known.sha256}", known)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tensors(19), r"holds images \[19, 3, 4, 4\] torch.uint8, expected \[20, 3, 4, 4\]"),
        ({**tensors(), "images": tensors()["images"].float()}, "torch.float32, expected .* torch.uint8"),
        ({**tensors(), "labels": tensors(19)["labels"]}, r"holds labels \[19\]"),
        ({**tensors(), "labels": tensors()["labels"].int()}, "torch.int32, expected"),
        ({**tensors(), "labels": tensors()["labels"] + 1}, r"has labels 1 \.\.\. 5, expected 0 \.\.\. 4"),
        ({"images": tensors()["images"]}, "is no readable safetensors file of images and labels"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, wrong, message):
    save_file(wrong, tmp_path / "test.safetensors")
    expect_error(tmp_path / "test.safetensors", message)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    torch.save({"images": Bomb()}, tmp_path / "train.safetensors")
    expect_error(tmp_path / "train.safetensors", "is no readable safetensors file")
    assert not (tmp_path / "boom").exists()


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "train.safetensors").mkdir()
    expect_error(tmp_path / "train.safetensors", "is no readable safetensors file|does not exist")
