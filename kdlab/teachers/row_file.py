"""Rows of numbers on disk, for many processes at once, that may be cut off at any instant.

Every row ends in a 32-bit checksum over its bytes, its number and the key of the file. A row that was never written
(a hole in the file), is half written, was damaged, or belongs to another table has a wrong checksum: it is missing.
So rows need no lock, and no order in which they reach the disk. Who is about to fill one may claim it, so that nobody
else computes the same.

A folder holds one table: ``rows.bin``, and ``card.json``, which says in words what the rows are.

Shapes: B rows of a call, W values per row.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from kdlab.atomic import write_text
from kdlab.errors import IntegrityError, UsageError

log = logging.getLogger(__name__)

Words = NDArray[np.uint32]

_NUMPY: dict[torch.dtype, np.dtype[Any]] = {torch.float16: np.dtype("<f2"), torch.float32: np.dtype("<f4")}
_WORD = np.dtype("<u4")
PATIENCE_S = 10.0  # with a process that has a claim: it may be stopped, or compile its teacher
_LOOK_EVERY_S = 0.002
_BLOCK_WORDS = 2**22  # 16 MiB: what is read at once when a whole file is looked through


class RowFile:
    """A table of floating-point rows in a folder, made when it is not there.

    Args:
        folder: where it lies.
        card: what the rows are, JSON values; another card is another table.
        rows: how many.
        width: W.
        dtype: float16 or float32.

    Raises:
        UsageError: if the folder cannot be written, or the disk has no room for the table.
        IntegrityError: if the file that is there cannot be read.
    """

    def __init__(self, folder: Path, card: Mapping[str, Any], rows: int, width: int, dtype: torch.dtype) -> None:
        self.folder, self.path = folder, folder / "rows.bin"
        self.rows, self.width, self.dtype = rows, width, dtype
        words = -(-width * dtype.itemsize // _WORD.itemsize)
        self._record_bytes = (words + 1) * _WORD.itemsize
        self._factors, self._row_factor, self._start = _hash_numbers(card, words)
        self._make(card)
        self._descriptor = self._open()
        self._map: Words = np.memmap(self.path, _WORD, "r", shape=(rows, words + 1))

    @property
    def size_bytes(self) -> int:
        """Of the complete file; rows that were not written yet take no room on the disk."""
        return self.rows * self._record_bytes

    @property
    def writable(self) -> bool:
        """Whether new rows are kept."""
        return self._descriptor is not None

    def recall(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Look rows up.

        Args:
            rows: ``[B]`` numbers.

        Returns:
            ``[B, W]`` values, where the rows are: NaN in a row that is missing. And the positions (0 ... B - 1) of
            those that are missing.
        """
        values, known = self._read(rows.cpu().numpy())
        values[~known] = torch.nan
        return values.to(rows.device), (~known).nonzero().squeeze(1).to(rows.device)

    def keep(self, rows: Tensor, values: Tensor) -> None:
        """Write rows, each listed once; a disk that refuses is a warning, not an error: nothing is lost but time.

        Args:
            rows: ``[B]`` numbers.
            values: ``[B, W]`` of the table's type.
        """
        if self._descriptor is None or not len(rows):
            return
        numbers, order = rows.cpu().sort()
        records = self._records(numbers.numpy(), values.cpu()[order])
        breaks = (numbers.diff() != 1).nonzero().squeeze(1) + 1
        try:
            for first, end in pairwise([0, *breaks.tolist(), len(numbers)]):
                _write(self._descriptor, records[first:end].tobytes(), int(numbers[first]) * self._record_bytes)
        except OSError as error:
            self._stop_writing(error)

    @contextmanager
    def claim(self, row: int) -> Iterator[None]:
        """Wait while another process claims this row; then claim it, so that processes in step do not compute the same.

        It is a lock of the system on a byte behind the file's end. It ends with its process at the latest, or when that
        opens the table once more: then both may compute. Where there are no locks, or behind a process that takes
        longer than `PATIENCE_S`, there is no claim.
        """
        claimed = self._lock(row)
        try:
            yield
        finally:
            if claimed and self._descriptor is not None:
                with suppress(OSError):  # a claim that stays costs others a wait, not this run its end
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self.size_bytes + row)

    def alone(self) -> FileLock:
        """Return a lock, for who asks about all rows: others that would do so wait for it, or for its end."""
        return FileLock(self.folder / ".filling")

    def sync(self) -> None:
        """Wait until all that was written is on the disk; one that refuses is a warning, as in `keep`."""
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:  # a quota or a network disk may refuse only now
            self._stop_writing(error)

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield the whole table in pieces: which rows, their values ``[B, W]``, and whether they are there ``[B]``."""
        step = max(1, _BLOCK_WORDS // (self._record_bytes // _WORD.itemsize))
        for first in range(0, self.rows, step):
            end = min(first + step, self.rows)
            yield slice(first, end), *self._read(np.arange(first, end))

    def known(self) -> Tensor:
        """Return ``[rows]`` bool: which rows are there."""
        return torch.cat([known for _, _, known in self.blocks()])

    def _lock(self, row: int) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while self._descriptor is not None and time.monotonic() < deadline:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.size_bytes + row)
                return True
            except BlockingIOError:  # another process has it
                time.sleep(_LOOK_EVERY_S)
            except OSError:
                return False
        return False

    # -- rows and bytes -----------------------------------------------------------------------------------

    def _read(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        records = self._map[rows]  # a copy: what is verified is what is returned, whoever writes meanwhile
        words = np.ascontiguousarray(records[:, :-1])
        known = records[:, -1] == self._checksums(rows, words)
        values = words.view(_NUMPY[self.dtype])[:, : self.width]
        return torch.from_numpy(np.ascontiguousarray(values)), torch.from_numpy(known)

    def _records(self, rows: NDArray[np.int64], values: Tensor) -> Words:
        length = (self._record_bytes - _WORD.itemsize) // self.dtype.itemsize  # whole words
        padded = np.zeros((len(values), length), _NUMPY[self.dtype])
        padded[:, : self.width] = values.numpy()
        words = padded.view(_WORD)
        return np.concatenate([words, self._checksums(rows, words)[:, None]], axis=1)

    def _checksums(self, rows: NDArray[np.int64], words: Words) -> Words:
        """Multilinear hash with secret odd factors, mixed by the finalizer of SplitMix64; never 0.

        An odd factor makes every change of a single word another sum. All arithmetic is modulo 2^64.
        """
        z = words.astype(np.uint64) @ self._factors + rows.astype(np.uint64) * self._row_factor + self._start
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.maximum((z >> np.uint64(32)).astype(_WORD), _WORD.type(1))  # 0 is what a hole reads as

    # -- the files ----------------------------------------------------------------------------------------

    def _make(self, card: Mapping[str, Any]) -> None:
        """See that folder, card and file are there; a file of another size (a copy that broke off) gets the right one.

        What a killed process leaves is an empty file, or one of the right size: its rows are missing or verified.
        """
        card_path = self.folder / "card.json"
        if card_path.exists() and self._size() == self.size_bytes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                size = self._size()
                if size not in (None, 0, self.size_bytes):
                    log.warning("%s has %d bytes instead of %d; what it lacks is computed again",
                                self.path, size, self.size_bytes)  # fmt: skip
                if size != self.size_bytes:
                    self._require_room()
                    with self.path.open("ab") as file:
                        file.truncate(self.size_bytes)
                write_text(card_path, json.dumps(card, indent=1) + "\n")
        except OSError as error:
            raise UsageError(
                f"the teacher's answers cannot be kept in {self.folder} ({error.strerror}); "
                "choose another folder with cache_dir, or use the teacher without CachedTeacher"
            ) from error

    def _size(self) -> int | None:
        return self.path.stat().st_size if self.path.exists() else None

    def _require_room(self) -> None:
        taken = self.path.stat().st_blocks * 512 if self.path.exists() else 0
        free = shutil.disk_usage(self.folder).free
        if self.size_bytes - taken > free:
            raise UsageError(
                f"the teacher's answers take {gib(self.size_bytes)}, but the disk of {self.folder} has {gib(free)} "
                "free; choose another disk with cache_dir, or an augmentation with fewer views"
            )

    def _open(self) -> int | None:
        """Open for writing, and see that the file can be read; None where it cannot be written."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except OSError as error:
            if not os.access(self.path, os.R_OK):
                raise IntegrityError(
                    f"{self.path} cannot be read ({error.strerror}); change its mode or choose another cache_dir"
                ) from error
            log.warning("%s cannot be written (%s): new answers of the teacher are not kept", self.path, error.strerror)
            return None
        self._close = weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _stop_writing(self, error: OSError) -> None:
        self._close()
        self._descriptor = None
        log.warning(
            "%s cannot be written any more (%s): new answers of the teacher are not kept", self.path, error.strerror
        )


def gib(size_bytes: float) -> str:
    """Say a size in GiB, small ones in MiB."""
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**29 else f"{size_bytes / 2**20:.2f} MiB"


def _hash_numbers(card: Mapping[str, Any], words: int) -> tuple[NDArray[np.uint64], np.uint64, np.uint64]:
    """Return an odd factor for each word, one for the row's number, and a start; all follow from the card."""
    key = json.dumps(card, sort_keys=True).encode()
    numbers = np.frombuffer(hashlib.shake_256(key).digest(8 * (words + 2)), "<u8")
    return numbers[:words] | np.uint64(1), numbers[words] | np.uint64(1), numbers[words + 1]


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """Write all bytes: the system may take a part at a time."""
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done:], offset + done)
