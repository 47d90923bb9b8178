"""TensorBoard, with its files in the run's folder."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import loggers as lightning

from kdlab.extras import installed, require
from kdlab.run.folder import RunFolder
from kdlab.run.tracker import NoExperiment, Tracker


class TensorBoard(Tracker, lightning.TensorBoardLogger):
    """Write the metrics of a run to ``tensorboard`` in its folder: ``tensorboard --logdir runs`` shows all runs.

    A resumed run continues there; what was written after its resume point is hidden.
    """

    def __init__(self) -> None:
        if _installed():  # otherwise `check_installed` says so: the parser would bury what is said here
            super().__init__(save_dir="", name="", version="tensorboard")
        self._begun = False

    def check_installed(self) -> None:
        """Refuse to be used without the package.

        Raises:
            UsageError: if it is missing.
        """
        if not _installed():
            require("tensorboard", "tensorboard", "TensorBoard")

    def begin(self, folder: RunFolder, step: int | None) -> None:
        """Write into this folder from now on."""
        self._root_dir = str(folder.path)
        if step:
            self._kwargs["purge_step"] = step
        self._begun = True

    @property
    def experiment(self) -> Any:  # noqa: ANN401 (a SummaryWriter, or what stands for none)
        """The writer, or something that does nothing before `begin`."""
        return super().experiment if self._begun else NoExperiment()

    def save(self) -> None:
        """Write what is not written yet; configs are no file of their own here."""
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Write what is not written yet; the test is still to come."""
        self.save()

    def close(self) -> None:
        """Close the file."""
        try:
            self.experiment.close()
        finally:
            self._begun = False


def _installed() -> bool:
    return installed("tensorboard") or installed("tensorboardX")  # Lightning writes by either
