"""What ``fit`` would make of its arguments, found out by its own parser without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from kdlab.config_cli import ConfigCLI
from kdlab.config_files import find_configs
from kdlab.errors import UsageError
from kdlab.messages import explained
from kdlab.run.science import aside, science
from kdlab.studies.plan import PlannedRun
from kdlab.studies.planner import run_id


class _Rehearsal(ConfigCLI):
    """The command line up to the point where a Trainer would be made."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:  # noqa: ANN401
        """Nothing: a Trainer looks for accelerators, and a process that has used one cannot fork."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""


class ConfigReader:
    """Parses and builds the configs of a study, one after the other.

    Args:
        options: put behind the arguments of every run, such as the data folder.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = list(options)
        self._cli: _Rehearsal | None = None
        self._read: dict[tuple[str, ...], Mapping[str, Any]] = {}  # each round of a search asks for those before, too
        self._data: dict[tuple[type, str], LightningDataModule] = {}  # by class and folder

    def __call__(self, arguments: Sequence[str]) -> Mapping[str, Any]:
        """Return what decides the weights of the run with these arguments of ``fit``, and under ``aside`` the rest.

        Raises:
            UsageError: if the parser or a constructor refuses them.
        """
        key = tuple(arguments)
        if key not in self._read:
            self._read[key] = self.afresh(arguments)
        return self._read[key]

    def prepare_data(self) -> None:
        """Have the data of all runs in their place: otherwise each run would fail for itself.

        Raises:
            IntegrityError: if they are missing and cannot be downloaded, or damaged.
        """
        for data in self._data.values():
            data.prepare_data()

    def is_as_planned(self, run: PlannedRun) -> bool:
        """Whether a run still computes what its id says: config files may have changed since it was planned."""
        *arguments, _ = run.arguments  # the last one is its seed
        try:
            return run_id(self.afresh([*arguments, "0"]), run.seed) == run.id
        except UsageError:
            return False

    def afresh(self, arguments: Sequence[str]) -> Mapping[str, Any]:
        """The same, from the files as they are now."""
        command = ["fit", *find_configs(arguments), *self._options]
        try:
            if self._cli is None:  # building the parser takes longer than parsing
                self._cli = _Rehearsal(command)
            else:
                self._cli.parse_arguments(self._cli.parser, command)
                self._cli.before_instantiate_classes()
                self._cli.instantiate_classes()
        except Exception as error:
            code, message = explained(error)
            if code == UsageError.exit_code:
                raise UsageError(message) from error
            raise
        data = self._cli.datamodule
        self._data.setdefault((type(data), str(getattr(data, "data_dir", ""))), data)
        return {**science(self._cli.resolved), "aside": aside(self._cli.resolved)}
