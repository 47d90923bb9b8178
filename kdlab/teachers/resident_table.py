"""A table of rows in memory, on the device or in the host's, beside the file that it is kept in.

Shapes: B rows of a call, M of them missing, W values per row.
"""

from __future__ import annotations

import os
from typing import Literal

import torch
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.teachers.row_file import RowFile, gib

Place = Literal["auto", "device", "host", "disk"]

_DEVICE_SHARE = 0.25  # of its free memory: images and networks need the rest
_HOST_SHARE = 1 / 16  # of all memory: each process of a machine with eight GPUs has a table of its own


class ResidentTable:
    """All rows of a file in memory. A missing row is NaN.

    Once all rows that will be asked for are there, looking up waits for nothing.

    Args:
        file: where rows come from and are kept.
        device: in whose memory.
        asked: the numbers of the rows that may be asked for.
    """

    def __init__(self, file: RowFile, device: torch.device, asked: Tensor) -> None:
        self.file = file
        self.values = torch.empty(file.rows, file.width, dtype=file.dtype, device=device)
        for rows, values, known in file.blocks():
            values[~known] = torch.nan
            self.values[rows] = values.to(device)
        self.expect(asked)

    def expect(self, asked: Tensor) -> None:
        """Hear the numbers of the rows that may be asked for from now on."""
        self.unknown = int(self.values[asked.to(self.values.device), 0].isnan().sum())

    def recall(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Look ``[B]`` rows up: ``[B, W]`` values, and the positions ``[M]`` of the missing; None where all are there.

        What is missing is looked up in the file as well: another process may have been faster.
        """
        here = rows.to(self.values.device)
        values = self.values.index_select(0, here)
        if not self.unknown:
            return values.to(rows.device), None
        missing = values[:, 0].isnan().nonzero().squeeze(1)
        if len(missing):
            found, still = self.file.recall(here[missing])
            values[missing] = found
            self._fill(here[missing], found)
            missing = missing[still]
        return values.to(rows.device), missing.to(rows.device)

    def answers_at_once(self, device: torch.device) -> bool:
        """Whether looking up takes nothing but this device: all rows are there, in its memory."""
        return not self.unknown and self.values.device == device

    def keep(self, rows: Tensor, values: Tensor) -> None:
        """Remember rows, each listed once."""
        self.file.keep(rows, values)
        self._fill(rows.to(self.values.device), values.to(self.values.device))

    def _fill(self, rows: Tensor, values: Tensor) -> None:
        self.values[rows] = values
        self.unknown -= len(torch.unique(rows[~values[:, 0].isnan()]))


def table_at(place: Place, file: RowFile, device: torch.device, asked: Tensor) -> ResidentTable | RowFile:
    """Return the file itself, or a table in memory where it fits.

    Args:
        place: where; ``auto`` for the first that has room of the device (a GPU), the host, the disk.
        file: the rows.
        device: where the answers are needed.
        asked: the numbers of the rows that may be asked for.

    Raises:
        UsageError: if the rows do not fit where they shall be.
    """
    host = torch.device("cpu")
    need = file.rows * file.width * file.dtype.itemsize
    on_device, on_host = _free(device), _free(host)
    for name, where, free in (("device", device, on_device), ("host", host, on_host)):
        if place == name and need > free:
            raise UsageError(
                f"place is {place}, but the teacher's answers take {gib(need)} and {where} has {gib(free)}; "
                "set place: auto"
            )
    if place == "device" or (place == "auto" and device.type == "cuda" and need <= _DEVICE_SHARE * on_device):
        return ResidentTable(file, device, asked)
    if place == "host" or (place == "auto" and need <= _HOST_SHARE * on_host):
        return ResidentTable(file, host, asked)
    return file


def _free(device: torch.device) -> int:
    """Bytes that are free on a GPU, or all that the machine has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
