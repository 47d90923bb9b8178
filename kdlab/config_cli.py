"""LightningCLI as kdlab uses it, up to the Trainer: a config is parsed, checked, and its method and data are built."""

from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse.typing import register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from kdlab.blame import constructed, users_mistake
from kdlab.config_checks import check_config, check_seed
from kdlab.config_parts import classes_in, fill_in_from_data
from kdlab.data import ImageData
from kdlab.errors import KDLabError, UsageError
from kdlab.messages import our_error
from kdlab.methods import Method
from kdlab.parser import KDLabParser
from kdlab.parser_messages import brief

# imported so that configs may use the short names of their classes
from kdlab.run import checkpoints, costs, fast, graphed_steps, tensorboard, wandb_logger  # noqa: F401

register_type(torch.device)  # of Lightning's StochasticWeightAveraging: written as text, and read again

TRAINER_DEFAULTS = {
    "max_epochs": 30,
    "num_sanity_val_steps": 0,  # `Method.setup` tries the networks on the data's shape
    "use_distributed_sampler": False,  # Lightning's pads the splits; BatchLoader shards them exactly
    "enable_model_summary": False,
}
PROFILE_BY_DEFAULT = True
BUILD_ERRORS = (
    ValueError, TypeError, ImportError, ArithmeticError, AssertionError, RuntimeError, MisconfigurationException,
)  # fmt: skip
HINTS = {  # what Lightning says of a Trainer that cannot be -> what to do
    "gpu backend": "set --trainer.accelerator to cpu or auto",
    "torch_xla": "set --trainer.accelerator to cpu or auto",
    "accelerator name": "set --trainer.accelerator to cpu, gpu or auto",
    "devices": "set --trainer.devices to a number of processes from 1 up, or to auto",
}
PLACE_KEYS = ("ckpt_path", "weights_only")  # of one call, not of the run


class ConfigCLI(LightningCLI):
    """Builds what a config describes; a subclass says what the verb does with it.

    Args:
        args: a verb of training and its options.

    Attributes:
        resolved: the whole config of the verb, as plain values.
        run_path: where a run of this name lies, or the first of several.
        config_folder: of the first config file.
    """

    def __init__(self, args: list[str]) -> None:
        self._verb = args[0] if args else None
        super().__init__(
            Method,
            ImageData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=None,  # ours writes into the run folder; Lightning's clashes with W&B
            seed_everything_default=0,
            parser_class=KDLabParser,
            trainer_defaults=TRAINER_DEFAULTS,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb that is given, alone: building the parsers of the others takes longer than parsing."""
        verbs = super().subcommands()
        return {self._verb: verbs[self._verb]} if self._verb in verbs else verbs

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the names of the run and let data, model and Trainer fill each other in."""
        parser.add_argument(
            "--profile",
            type=bool,
            default=PROFILE_BY_DEFAULT,
            help="Measure latency, MACs, size and energy of the student after its test.",
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--experiment", type=str | None, default=None, help="Folder inside runs_dir; by default that of the config."
        )
        parser.add_argument(
            "--name", type=str | None, default=None, help="Folder of this run; by default CONFIG-seedSEED."
        )
        for network in ("student", "teacher.init_args.network", "teacher.init_args.teacher.init_args.network"):
            for argument in ("num_classes", "in_channels"):
                target = f"model.init_args.{network}.init_args.{argument}"
                parser.link_arguments(f"data.{argument}", target, apply_on="instantiate")
        for part in ("model", "data"):
            parser.link_arguments("seed_everything", f"{part}.init_args.seed")
        parser.link_arguments("trainer.max_epochs", "model.init_args.lr_scheduler.init_args.T_max")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, and let ``null`` on the command line be null: jsonargparse makes it the text None in a nested slot."""
        try:
            super().parse_arguments(parser, args)
        except KDLabError:
            raise
        except RecursionError as error:
            raise UsageError("the arguments are nested too deeply; give plain values, or a config file") from error
        except Exception as error:  # jsonargparse meets values that it did not expect in as many ways
            if users_mistake(error) is not None:
                raise
            raise UsageError(f"the config cannot be read: {brief(str(error) or type(error).__name__)}") from error
        for key, value in list(self.config.items()):
            if value == "None":
                self.config[key] = None

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let what a checkpoint says override the command line, silently."""

    def _set_seed(self) -> None:
        check_seed(self._config["seed_everything"])
        super()._set_seed()

    @property
    def _config(self) -> Any:  # noqa: ANN401 (jsonargparse's Namespace)
        return self.config[self.subcommand]

    @property
    def _is_rehearsal(self) -> bool:
        """Whether only a few batches are asked for."""
        trainer = self._config.trainer
        limit = trainer.limit_train_batches  # 2 may come as 2.0: typing holds int | float and float | int for the same
        return bool(trainer.fast_dev_run) or isinstance(limit, int) or (limit is not None and limit > 1)

    def before_instantiate_classes(self) -> None:
        """Name the run, refuse what nobody means, and fill in what no link of the parser does."""
        if self._config.runs_dir is None or "\0" in self._config.runs_dir:
            raise UsageError(f"runs_dir is {self._config.runs_dir!r}, which is no folder; leave it out for runs")
        first = Path(str(self._config.config[0])) if self._config.config else Path("unnamed/unnamed.yaml")
        seed = self._config.seed_everything
        self._config.experiment = self._config.experiment or first.resolve().parent.name
        self._config.name = self._config.name or f"{first.stem}-seed{seed}"
        self.run_path = Path(self._config.runs_dir, self._config.experiment, self._config.name)
        self.config_folder = first.parent
        check_config(self._config)
        if self._config.trainer.val_check_interval == 1:
            self._config.trainer.val_check_interval = 1.0  # the epoch; Lightning takes the integer for every batch
        fill_in_from_data(self._config)
        self.resolved = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[self.subcommand]
        self.resolved = {key: value for key, value in self.resolved.items() if key not in PLACE_KEYS}

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses is the user's to mend."""
        try:
            super().instantiate_classes()
        except BUILD_ERRORS as error:
            if our_error(error) is not None or users_mistake(error) is not None:
                raise
            refused = constructed(error, set(classes_in(self._config)))
            where = f"{refused.__name__} cannot be built with these arguments: " if refused else ""
            hint = next((f"; {fix}" for sign, fix in HINTS.items() if sign in str(error)), "")
            raise UsageError(where + brief(str(error) or type(error).__name__).rstrip(".") + hint) from error
