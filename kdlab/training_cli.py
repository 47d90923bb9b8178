"""LightningCLI as kdlab uses it: the verbs fit, validate, test and predict, with run folders, teachers and results."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from kdlab.blame import constructed, users_mistake
from kdlab.config_checks import check_config, check_launched, check_seed, check_synchronized
from kdlab.config_files import find_config
from kdlab.config_parts import classes_in, fill_in_from_data

# imported so that configs may use the short names of these classes
from kdlab.data import ImageData
from kdlab.errors import KDLabError, UsageError
from kdlab.messages import exit_code, our_error
from kdlab.methods import Method
from kdlab.parser import KDLabParser
from kdlab.parser_messages import brief
from kdlab.run.bad_batch import BadBatch
from kdlab.run.checkpoints import AtomicCheckpointIO, BestStudent, ResumePoint
from kdlab.run.costs import default_profilers
from kdlab.run.fast import ChannelsLast, CompiledNetworks  # noqa: F401 (for configs)
from kdlab.run.folder import RunFolder
from kdlab.run.guard import guard
from kdlab.run.metrics_csv import MetricsCSV
from kdlab.run.peers import PeerWatch
from kdlab.run.progress import EpochLines, progress_bar
from kdlab.run.recipes import check_recipe, provide_teacher, recipes_in
from kdlab.run.recorder import RunRecorder
from kdlab.run.requeue import slurm_environment
from kdlab.run.resume_check import restoring
from kdlab.run.same_config import SameConfig
from kdlab.run.science import science
from kdlab.run.start import load_student, run_to_continue
from kdlab.run.stopping import StopOnSignal
from kdlab.run.summary import build_result, print_table, write_predictions, write_result
from kdlab.run.teacher_check import TeacherCheck
from kdlab.run.tensorboard import TensorBoard  # noqa: F401 (for configs)
from kdlab.run.tracker import Tracker
from kdlab.run.wandb_logger import WandbLogger  # noqa: F401 (for configs)
from kdlab.teachers import FrozenTeacher
from kdlab.weights import load_weights, save_weights

log = logging.getLogger(__name__)

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


class KDLabCLI(LightningCLI):
    """LightningCLI with kdlab's run folder, teachers that are trained when missing, and a result at the end."""

    def __init__(self, args: list[str]) -> None:
        self.args = args
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

    # -- what the command line knows ----------------------------------------------------------------------

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
            "--experiment", type=str | None, default=None, help="Folder inside it; by default that of the config."
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

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with kdlab's checkpoints, loggers and callbacks."""
        config = self._get(self.config_init, "trainer")
        self.recorder = self._make_recorder(config)
        callbacks = self._make_callbacks(config)
        given = any(isinstance(callback, ProgressBar) for callback in callbacks)
        bar = progress_bar() if config.get("enable_progress_bar") is not False and not given else []
        kwargs |= {
            "callbacks": [*callbacks, *bar],
            "logger": self._make_loggers(config),
            "plugins": [*_listed(config.get("plugins")), AtomicCheckpointIO(), *slurm_environment()],
            "enable_progress_bar": bool(bar) or given,
        }
        trainer = super().instantiate_trainer(**kwargs)
        if not torch.cuda.is_available():  # as Lightning sets it, each optimizer step opens NVIDIA's library anew
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
        check_synchronized(trainer.strategy.root_device, trainer.world_size, bool(config.get("sync_batchnorm")))
        check_launched(trainer.num_nodes)
        launched_by = getattr(trainer.strategy, "cluster_environment", None)
        if launched_by is not None:
            launched_by.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
        return trainer

    def _make_recorder(self, config: Any) -> RunRecorder | None:  # noqa: ANN401 (the Trainer's section)
        """What keeps the run's folder; None where nothing is trained, or nothing written."""
        if self.subcommand != "fit" or config.get("fast_dev_run"):
            return None
        wanted = self._config.ckpt_path
        resumed = run_to_continue(wanted, self.run_path, self.resolved) if wanted else None
        return RunRecorder(self.run_path, resumed, yaml.safe_dump(self.resolved, sort_keys=False))

    def _make_callbacks(self, config: Any) -> list[Callback]:  # noqa: ANN401
        """The user's callbacks with ours around them; they are called in this order."""
        self.best, self.teacher_check = BestStudent(), TeacherCheck()
        callbacks = [*_listed(config.get("callbacks")), self.best, self.teacher_check, BadBatch()]
        resume_points = [callback for callback in callbacks if isinstance(callback, ResumePoint)] or [ResumePoint()]
        callbacks += [point for point in resume_points if point not in callbacks]
        callbacks.append(StopOnSignal(resume_points[0]))
        self.peers = PeerWatch(resume_points[0], exit_code)
        if self._config.profile and self.subcommand in ("fit", "test") and not self._is_rehearsal:
            callbacks += default_profilers(callbacks)
        elif self._config.profile and self.subcommand == "fit" and not config.get("fast_dev_run"):
            log.info("nothing is profiled: limit_train_batches says that this is a rehearsal")
        # the watch before all that it watches when they start, and the recorder, which claims the folder, before that
        return [
            SameConfig(self.resolved, self._config.get("ckpt_path")),
            *([] if self.recorder is None else [self.recorder]),
            self.peers,
            *callbacks,
        ]

    def _make_loggers(self, config: Any) -> list[Logger]:  # noqa: ANN401
        """Ours, where a run is recorded, and the user's, none of which can stop a training."""
        loggers: list[Logger] = []
        if self.recorder is not None:
            loggers = [MetricsCSV(), EpochLines(config.get("max_epochs"))]
        loggers += [logger for logger in _listed(config.get("logger")) if logger is not True]  # Lightning's default
        for logger in loggers:
            if isinstance(logger, Tracker):
                logger.check_installed()
        return [guard(logger) for logger in loggers]

    # -- verbs --------------------------------------------------------------------------------------------

    def fit(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Train, test the student that the protocol names, and write and show the result."""
        self._provide_teachers(model)
        resume = None
        if ckpt_path and self.recorder and self.recorder.folder:
            resume = str(self.recorder.folder.last) if ckpt_path == "last" else ckpt_path
        try:
            with self.peers:
                with restoring(resume):
                    self.trainer.fit(model, datamodule=datamodule, ckpt_path=resume, weights_only=True)
                if self.recorder is not None:
                    self._conclude(model, datamodule, self.recorder)
                else:
                    log.info("fast_dev_run: every part ran; nothing was written")
        finally:
            if self.recorder is not None:
                for tracker in self._trackers:
                    tracker.close()
                self.recorder.close()

    def validate(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Show the metrics of a trained student on the validation split."""
        self._load_student(model, ckpt_path)
        with self.peers:
            self.trainer.validate(model, datamodule=datamodule, verbose=self.trainer.is_global_zero)

    def test(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Show the metrics of a trained student on the test split."""
        checkpoint = self._load_student(model, ckpt_path)
        with self.peers:
            self.trainer.test(model, datamodule=datamodule, verbose=False)
        if self.trainer.is_global_zero:
            print_table(self._result({"selection": f"weights of {checkpoint}"}))

    def predict(self, model: Method, datamodule: ImageData, ckpt_path: str | None = None, **_: Any) -> None:
        """Write the class and confidence that a trained student gives to each test image."""
        if self.trainer.world_size > 1:
            raise UsageError(f"predict runs in one process, not in {self.trainer.world_size}; set --trainer.devices 1")
        checkpoint = self._load_student(model, ckpt_path)
        batches: Any = self.trainer.predict(model, datamodule=datamodule)
        path = checkpoint.parent / "predictions.csv"
        write_predictions(batches, datamodule.class_names, path)
        log.info("predictions are in %s", path)

    # -- pieces -------------------------------------------------------------------------------------------

    def _provide_teachers(self, model: Method) -> None:
        trainer_config = self._config.trainer
        for teacher in model.modules():
            if not isinstance(teacher, FrozenTeacher) or teacher.recipe is None or teacher.ready:
                continue
            if self._is_rehearsal and not Path(str(teacher.checkpoint)).exists():
                log.warning("rehearsal of a few batches: the teacher %s is missing, an untrained one stands in",
                            teacher.checkpoint)  # fmt: skip
                teacher.use_untrained()
                continue
            # one device, whatever the student uses: batch_size is per process, so another number is another recipe
            options = ["--trainer.accelerator", trainer_config.accelerator, "--trainer.devices", "1"]
            options += ["--trainer.precision", str(trainer_config.precision or "32-true")]
            if "data_dir" in self._config.data.init_args:
                options += ["--data.data_dir", self._config.data.init_args.data_dir]
            provide_teacher(teacher, self._recipe(teacher.recipe), options)

    def _recipe(self, config: str) -> dict[str, Any]:
        """What a recipe decides about the weights."""
        recipe = self.parser.parse_args(["fit", "--config", find_config(config)])
        resolved = science(yaml.safe_load(self.parser.dump(recipe, skip_unset=False))["fit"])
        for inner in recipes_in(resolved["model"]):  # a teacher's own teacher: its recipe must not have changed either
            if Path(inner["checkpoint"]).exists():
                check_recipe(Path(inner["checkpoint"]), self._recipe(inner["recipe"]), inner["recipe"])
        return resolved

    def _conclude(self, model: Method, data: ImageData, recorder: RunRecorder) -> None:
        """Keep the student that the protocol names, test it, write and show the result."""
        folder = recorder.folder
        assert folder is not None
        if self.trainer.global_step == 0:
            raise UsageError(
                "training ended before its first step, so there is no student; raise trainer.max_time (it is "
                f"{self._config.trainer.max_time}), or leave it out"
            )
        selected = self.best.epoch >= 0
        if self.trainer.is_global_zero:
            card = load_weights(model.student, folder.best) if selected else {"epoch": self.trainer.current_epoch - 1}
            card |= {"network": type(model.student).__name__, "config": science(self.resolved)}
            save_weights(model.student, folder.student, card)
        self.trainer.strategy.barrier()
        load_weights(model.student, folder.student)
        self.trainer.test(model, datamodule=data, verbose=False)
        if self.trainer.is_global_zero:
            protocol = {
                "selection": "best validation epoch" if selected else "last epoch",
                "selected_epoch": card["epoch"],
                "epochs": self.trainer.current_epoch,
            }
            result = self._result(protocol)
            result["student"]["val"] = {"accuracy": card.get("val_accuracy")}
            write_result(result, folder.result)
            print_table(result)
            for tracker in self._trackers:
                tracker.conclude(self.trainer, model, data, result)
            log.info("result, weights and config are in %s", folder.path)

    @property
    def _trackers(self) -> list[Tracker]:
        """The loggers that follow the run; they work in the first process only."""
        return [logger for logger in self.trainer.loggers if isinstance(logger, Tracker)]

    def _result(self, protocol: dict[str, Any]) -> dict[str, Any]:
        names = {"experiment": self._config.experiment, "name": self.run_path.name}
        if self.recorder is not None and self.recorder.folder is not None:
            names["name"] = self.recorder.folder.path.name
        run = {**names, "seed": self._config.seed_everything, "protocol": protocol}
        if self.teacher_check.report:
            run["teacher_check"] = self.teacher_check.report
        return build_result(self.trainer, self.model, self.datamodule, run, self.recorder)

    def _load_student(self, model: Method, ckpt_path: str | None) -> Path:
        return load_student(model.student, ckpt_path, RunFolder(self.config_folder), self.run_path, self.resolved)


def _listed(value: Any) -> list[Any]:  # noqa: ANN401
    """What a slot of the Trainer holds, one object or several, as a list; none where it is not set."""
    return list(value) if isinstance(value, list) else [value] if value else []
