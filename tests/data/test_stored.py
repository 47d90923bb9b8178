import multiprocessing
import os
import socket
import time
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdlab.data import CIFAR10, CIFAR100, MNIST, FashionMNIST, StoredImageData
from kdlab.data.mnist import read_idx
from kdlab.errors import IntegrityError

SHAPE = (4, 28, 28)
HEADER = bytes.fromhex("00000803 00000004 0000001c 0000001c")


class Tiny(StoredImageData):
    """Ten images, made by a slow download that notes who ran it."""

    num_classes = 2
    in_channels = 1
    image_size = 4
    class_names = ("even", "odd")
    num_train_images = 10
    num_test_images = 10
    default_mean = (0.0,)
    default_std = (1.0,)
    folder = "tiny"

    def convert(self, part):
        with (Path(self.data_dir) / "log").open("a") as log:
            log.write(f"{part} {os.getpid()}\n")
        time.sleep(0.2)
        return {"images": torch.full((10, 1, 4, 4), 7, dtype=torch.uint8), "labels": torch.arange(10) % 2}


def prepare_tiny(folder):
    Tiny(data_dir=str(folder)).prepare_data()


def test_several_processes_at_once_make_the_files_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=prepare_tiny, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sorted(line.split()[0] for line in (tmp_path / "log").read_text().splitlines()) == ["test", "train"]
    assert len(Tiny(data_dir=str(tmp_path), val_fraction=0.2).train_split) == 8


def test_files_that_are_there_are_neither_made_again_nor_changed(tmp_path):
    prepare_tiny(tmp_path)
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "tiny").glob("*.safetensors"))]
    (tmp_path / "log").unlink()
    prepare_tiny(tmp_path)
    assert not (tmp_path / "log").exists()
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "tiny").glob("*.safetensors"))] == before


def test_only_the_missing_file_is_made(tmp_path):
    prepare_tiny(tmp_path)
    (tmp_path / "tiny" / "test.safetensors").unlink()
    (tmp_path / "log").unlink()
    prepare_tiny(tmp_path)
    assert (tmp_path / "log").read_text().startswith("test ")


def test_what_was_damaged_on_the_disk_is_found_before_training(tmp_path):
    prepare_tiny(tmp_path)
    path = tmp_path / "tiny" / "train.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match=r"train.safetensors is damaged"):
        Tiny(data_dir=str(tmp_path)).setup("fit")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IntegrityError, match=r"cannot write to .*file/tiny .*set data.data_dir"):
        prepare_tiny(tmp_path / "file")


@pytest.mark.parametrize("data_set", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
@pytest.mark.parametrize("failure", [URLError("no route to host"), RuntimeError("Error downloading\nfile"), OSError()])
def test_missing_data_without_a_network_is_one_line(data_set, failure, tmp_path, monkeypatch):
    def no_network(*arguments, **keywords):
        assert socket.getdefaulttimeout() == 20
        raise failure

    monkeypatch.setattr(data_set, "_torchvision", type(data_set._torchvision.__name__, (), {"__init__": no_network}))
    with pytest.raises(IntegrityError, match=r"its download failed .*; connect to the network, or put") as caught:
        data_set(data_dir=str(tmp_path)).prepare_data()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / data_set.folder) in str(caught.value)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("data_set", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
def test_each_data_set_names_every_class_once(data_set):
    assert len(set(data_set.class_names)) == data_set.num_classes


def test_superclasses_of_cifar100_have_five_classes_each():
    assert torch.bincount(torch.tensor(CIFAR100.coarse_of_class)).tolist() == [5] * 20
    trees = [name for name, coarse in zip(CIFAR100.class_names, CIFAR100.coarse_of_class, strict=True) if coarse == 17]
    assert trees == ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"]


def test_cifar_is_converted_from_what_torchvision_read(tmp_path, monkeypatch):
    class Source:
        def __init__(self, root, train, download):
            generator = torch.Generator().manual_seed(int(train))
            self.data = torch.randint(0, 256, (6, 32, 32, 3), dtype=torch.uint8, generator=generator).numpy()
            self.targets = [0, 1, 2, 3, 4, 99]

    class Few(CIFAR100):
        num_train_images = num_test_images = 6
        sha256 = {}  # noqa: RUF012
        _torchvision = Source

    data = Few(data_dir=str(tmp_path), val_fraction=0)
    data.prepare_data()
    assert data.train_split.images.shape == (6, 3, 32, 32)
    assert data.train_split.images[1, 2, 3, 4] == Source(None, True, True).data[1, 3, 4, 2]
    assert data.test_split.labels.tolist() == [0, 1, 2, 3, 4, 99]
    stored = load_file(tmp_path / "cifar100" / "train.safetensors")
    assert stored["coarse_labels"].tolist() == [4, 1, 14, 8, 0, 13]


def test_an_idx_file_is_read(tmp_path):
    pixels = torch.arange(4 * 784).to(torch.uint8)
    (tmp_path / "idx").write_bytes(HEADER + pixels.numpy().tobytes())
    assert torch.equal(read_idx(tmp_path / "idx", SHAPE, None), pixels.view(SHAPE))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"has 0 bytes, expected 3152"),
        (HEADER + bytes(4 * 784 - 1), "has 3151 bytes, expected 3152"),
        (b"\x01" + HEADER[1:] + bytes(4 * 784), "begins with 01000803"),
        (HEADER + bytes(4 * 784), "is damaged: its SHA-256 is .* expected abc"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, message):
    (tmp_path / "idx").write_bytes(content)
    with pytest.raises(IntegrityError, match=message) as caught:
        read_idx(tmp_path / "idx", SHAPE, "abc")
    assert str(caught.value).endswith("delete the file and run again, it is then downloaded")


def test_a_missing_idx_file_is_named(tmp_path):
    with pytest.raises(IntegrityError, match=r"cannot read .*idx"):
        read_idx(tmp_path / "idx", SHAPE, None)


def test_the_real_mnist_is_converted_from_its_raw_files_and_verified(real_data_dir, tmp_path):
    (tmp_path / "MNIST").symlink_to(real_data_dir / "MNIST")
    data = MNIST(data_dir=str(tmp_path))
    data.prepare_data()
    assert len(data.train_split) == 54_000
    assert len(data.val_split) == 6_000
    assert data.test_split.images.shape == (10_000, 1, 28, 28)
    assert data.test_split.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.fingerprint() == MNIST.sha256["train"]


def test_a_flipped_bit_in_a_raw_mnist_file_is_found_though_torchvision_accepts_it(real_data_dir, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (real_data_dir / "MNIST" / "raw").glob("*ubyte"):
        (raw / path.name).symlink_to(path)
    content = bytearray((raw / "t10k-images-idx3-ubyte").read_bytes())
    content[5000] ^= 1
    (raw / "t10k-images-idx3-ubyte").unlink()
    (raw / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(IntegrityError, match="t10k-images-idx3-ubyte is damaged"):
        MNIST(data_dir=str(tmp_path)).prepare_data()


def test_the_real_cifar100_is_read_and_verified(real_data_dir, tmp_path):
    data = CIFAR100(data_dir=str(real_data_dir))
    data.prepare_data()
    assert torch.bincount(data.train_split.labels).tolist() == [450] * 100
    assert torch.bincount(data.val_split.labels).tolist() == [50] * 100
    assert data.fingerprint() == CIFAR100.sha256["train"]
    # the normalisation constants are those of these images
    pixels = data.train_split.images[::10].double() / 255
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor(CIFAR100.default_mean).double(), atol=5e-3, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.tensor(CIFAR100.default_std).double(), atol=5e-3, rtol=0)


def test_another_data_set_in_the_place_of_cifar100_is_refused(tmp_path):
    (tmp_path / "cifar100").mkdir()
    save_file(
        {"images": torch.zeros(50_000, 3, 32, 32, dtype=torch.uint8), "labels": torch.zeros(50_000).long()},
        tmp_path / "cifar100" / "train.safetensors",
    )
    with pytest.raises(IntegrityError, match=r"train.safetensors is damaged: its content has SHA-256"):
        CIFAR100(data_dir=str(tmp_path)).setup("fit")
