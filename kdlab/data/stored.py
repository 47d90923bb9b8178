"""Data sets that are downloaded once and then kept as two safetensors files."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from filelock import FileLock
from torch import Tensor

from kdlab.data.base import ImageData, Part
from kdlab.data.files import ExpectedSplit, read_split, write_split
from kdlab.errors import IntegrityError

_PARTS: tuple[Part, Part] = ("train", "test")
_CONNECT_TIMEOUT_S = 20.0  # torchvision sets none: without an answer it would wait for ever


class StoredImageData(ImageData):
    """Base of the data sets in ``<data_dir>/<folder>/{train,test}.safetensors``.

    If both files are there, nothing is downloaded. Otherwise one process (a lock in the folder decides which) makes
    them from torchvision's download, or from what a download left in ``data_dir``. See `ImageData` for the arguments.

    Attributes:
        folder: Name of the data set's folder.
        sha256: `content_digest` of ``train`` and ``test``, where the true ones are known. Where they are not, the
            digest in the file's own header is compared.
    """

    folder: ClassVar[str]
    sha256: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def convert(self, part: Part) -> dict[str, Tensor]:
        """Return ``images``, ``labels`` and what else belongs to a part, from the published files.

        Raises:
            IntegrityError: these are missing and cannot be downloaded, or damaged.
        """

    def path(self, part: Part) -> Path:
        """Return the file of a part."""
        return Path(self.data_dir) / self.folder / f"{part}.safetensors"

    def prepare_data(self) -> None:
        """Make the files that are missing; Lightning calls this in one process per machine.

        Raises:
            IntegrityError: the data cannot be downloaded, are damaged, or the files cannot be written.
        """
        if all(self.path(part).exists() for part in _PARTS):
            return
        folder = self.path("train").parent
        try:
            with _no_empty_folders(Path(self.data_dir)), _locked(folder):
                for part in _PARTS:
                    if not self.path(part).exists():  # another process may have made it while we waited
                        tensors = self.convert(part)
                        self._expected(part).check(tensors["images"], tensors["labels"], folder, "download it again")
                        write_split(self.path(part), tensors)
        except OSError as error:
            reason = error.strerror or str(error)
            raise IntegrityError(f"cannot write to {folder} ({reason}); set data.data_dir to another folder") from None

    def read(self, part: Part) -> tuple[Tensor, Tensor, str]:
        """See `ImageData.read`."""
        return read_split(self.path(part), self._expected(part))

    def _expected(self, part: Part) -> ExpectedSplit:
        return replace(super()._expected(part), sha256=self.sha256.get(part))

    @contextmanager
    def downloading(self) -> Iterator[None]:
        """Turn whatever goes wrong inside a torchvision download into one line, and bound the wait for a server."""
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_CONNECT_TIMEOUT_S)
        try:
            yield
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            # torchvision lists every mirror that did not answer
            reason = " ".join(str(error).split()).split(": Tried ")[0] or type(error).__name__
            raise IntegrityError(
                f"{type(self).__name__} is not in {self.path('train').parent} and its download failed ({reason}); "
                "connect to the network, or put train.safetensors and test.safetensors there"
            ) from None
        finally:
            socket.setdefaulttimeout(before)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Be the one process that works in a folder; if that fails, take away the lock that stood alone in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    with FileLock(lock):
        try:
            yield
        except BaseException:
            if [path.name for path in folder.iterdir()] == [lock.name]:
                lock.unlink()
            raise


@contextmanager
def _no_empty_folders(data_dir: Path) -> Iterator[None]:
    """Take away, if the block fails, the folders that it made and left empty: torchvision makes them first of all."""
    before = {data_dir, *data_dir.glob("*/"), *data_dir.glob("*/*/")} if data_dir.exists() else set()
    try:
        yield
    except BaseException:
        for folder in (*data_dir.glob("*/*/"), *data_dir.glob("*/"), data_dir):
            if folder not in before:
                with suppress(OSError):  # it is not empty, or somebody else has taken it away
                    folder.rmdir()
        raise
