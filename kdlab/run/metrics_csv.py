"""The metrics of a run as one CSV file that survives kills and resumes."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from kdlab.atomic import atomic_write
from kdlab.errors import IntegrityError

Row = dict[str, Any]

MACHINE = ("profile/", "export/")  # what the network costs on this machine, which differs from time to time


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``: ``step`` and the metrics that each of them has; none where there is no file.

    Raises:
        IntegrityError: if it is no such file.
    """
    try:
        return [{name: float(value) for name, value in row.items() if value} for row in _read(path)[1]]
    except (ValueError, csv.Error) as error:  # no text, or no numbers
        raise IntegrityError(f"{path} is damaged; put a whole one in its place, or remove it") from error


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and the whole rows, as they are written; a kill may have torn the last row."""
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(line for line in file if line.endswith("\n"))
        rows = [row for row in reader if None not in row and (row.get("step") or "").isdigit()]
        return list(reader.fieldnames or []), rows


class MetricsCSV(Logger):
    """Write ``metrics.csv``: one row per log call, with ``epoch``, ``step`` and the metrics by their names.

    The file is always whole: rows are appended after each logged step and epoch, and the file is replaced when a metric
    appears for the first time. A resumed run keeps the rows up to its resume point and writes the rest anew.
    (Lightning's own CSV logger deletes the file on resume.) Nothing is written before `open`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._path: Path | None = None
        self._columns: list[str] = ["epoch", "step"]
        self._rows: list[Row] = []  # not written yet
        self._written: list[Row] = []

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> int:
        """Not used: a run folder holds one run."""
        return 0

    @property
    def last_step(self) -> int:
        """Step of the last row that was written; 0 before the first."""
        return int(self._written[-1]["step"]) if self._written else 0

    def open(self, path: Path, step: int) -> None:
        """Write to `path` from now on, keeping its rows of the first `step` steps."""
        self._path = path
        if not path.exists():
            return
        columns, rows = _read(path)
        self._columns = columns or self._columns
        self._written = [row for row in rows if int(row["step"]) < step]
        self._replace_file()

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; what the network costs on this machine is in result.json alone."""
        if all(name.startswith(MACHINE) for name in metrics):
            return
        self._rows.append({"step": step, **metrics})

    @rank_zero_only
    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing: the resolved config lies beside the file."""

    @rank_zero_only
    def save(self) -> None:
        """Write the rows that are not written yet."""
        if self._path is None or not self._rows:
            return
        new = [key for row in self._rows for key in row if key not in self._columns]
        self._columns += dict.fromkeys(new)
        rows, self._rows = self._rows, []
        self._written += rows
        if new or not self._path.exists():
            self._replace_file()
        else:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerows(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()

    def _replace_file(self) -> None:
        assert self._path is not None
        with atomic_write(self._path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._written)
