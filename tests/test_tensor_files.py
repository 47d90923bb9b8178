"""Files of tensors are written whole, and reading one runs nothing."""

import io
import os

import pytest
import torch
from safetensors import safe_open

from kdlab.errors import IntegrityError
from kdlab.tensor_files import load_pickled, write_tensors


class Canary:
    """What runs when a pickle is loaded that names something to call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def load(file):
    return load_pickled(file, "checkpoint x", "checkpoint", "; it was not opened")


def test_tensors_and_header_come_back_and_a_view_is_written_whole(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"t": torch.arange(6.0).view(2, 3).T}, {"kdlab": "{}"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.get_tensor("t").tolist() == [[0, 3], [1, 4], [2, 5]]
        assert file.metadata() == {"kdlab": "{}"}


def test_a_failed_write_leaves_the_file_of_before(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"t": torch.zeros(1)}, {})
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_tensors(path, {"t": torch.ones(1)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_and_plain_values_come_back():
    file = io.BytesIO()
    torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, file)
    file.seek(0)
    content = load(file)
    assert content["epoch"] == 3
    assert content["state_dict"]["w"].tolist() == [1, 1]


def test_what_a_pickle_names_is_not_called(tmp_path):
    file = io.BytesIO()
    torch.save({"state_dict": Canary(tmp_path / "ran")}, file)
    file.seek(0)
    with pytest.raises(
        IntegrityError, match=r"^checkpoint x holds more than tensors and plain values; it was not opened$"
    ):
        load(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_told_from_a_foreign_one(content):
    with pytest.raises(IntegrityError, match=r"^checkpoint x is damaged or no checkpoint \(\w+\)$"):
        load(io.BytesIO(content))


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(13, "Permission denied")])
def test_a_whole_file_that_cannot_be_read_now_is_not_called_damaged(error, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises((MemoryError, IntegrityError)) as caught:
        load(io.BytesIO())
    assert "damaged" not in str(caught.value)
