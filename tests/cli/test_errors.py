"""What a user gets wrong: one line that names the value, the expectation and the fix, an exit code, and nothing left."""

from pathlib import Path

import pytest
import yaml

from kdlab.cli import main

MISTAKES = {
    "unknown argument": (["--model.tempreature", "2"], "LogitMatching has no tempreature; did you mean temperature?"),
    "misspelt slot": (["--modle.temperature", "3"], "no option --modle.temperature; did you mean --model.temperature?"),
    "abbreviated option": (["--trainer.max_epoch", "3"], "there is no option --trainer.max_epoch; did you mean --trainer.max"),
    "stray word": (["foo"], "unrecognized arguments: foo"),
    "text for a number": (["--model.temperature", "hot"], "model.temperature: expected float; given hot"),
    "text for a whole number": (["--data.batch_size", "many"], "data.batch_size: expected int; given many"),
    "unknown choice": (["--data.label_noise_kind", "evil"], "expected one of 'uniform', 'minus_one'; given evil"),
    "negative temperature": (["--model.temperature", "-2"], "temperature is -2, but it must be a positive number"),
    "alpha and a weight": (["--model.label_weight", "0.5"], "alpha: 0.1 and label_weight: 0.5 are both given"),
    "alpha above 1": (["--model.alpha", "1.5"], "alpha is 1.5, but it is the share of the label term"),
    "temperature without a use": (["--model.logit_loss", "MultiLevelKD"], "MultiLevelKD has no single temperature"),
    "batch larger than the data": (["--data.batch_size", "5000"], "train_per_class all); give at most 1293"),
    "empty batch": (["--data.batch_size", "0"], "data.batch_size is 0; give 1 or a larger whole number"),
    "all data held out": (["--data.val_fraction", "1.5"], "data.val_fraction is 1.5; give a share"),
    "too much noise": (["--data.label_noise", "2"], "data.label_noise is 2.0; give a share from 0 to 1"),
    "class count of another data set": (
        ["--model.student.init_args.num_classes", "100"],
        "MNISTPerceptron is given num_classes: 100, but Digits has 10; leave model.student.init_args.num_classes out",
    ),
    "network for other images": (
        ["--model.student.init_args.image_size", "28"],
        "28",
    ),
    "unknown network": (["--model.student", "kdlab.models.ResNet21"], "kdlab.models has no ResNet21; did you mean"),
    "unknown data": (["--data", "CIFAR1000"], "there is no class CIFAR1000; did you mean CIFAR100 or CIFAR10?"),
    "unknown method": (["--model", "LogitMaching"], "there is no class LogitMaching; did you mean LogitMatching"),
    "no teacher": (["--model.teacher", "null"], "teacher missing"),
    "negative learning rate": (["--model.optimizer.init_args.lr", "-1"], "model.optimizer: Invalid learning rate: -1.0"),
    "an accelerator that is not there": (["--trainer.accelerator", "tpu"], "torch_xla"),
    "unknown accelerator": (["--trainer.accelerator", "banana"], "invalid accelerator name: `accelerator='banana'`"),
    "split networks": (["--trainer.strategy", "fsdp"], "trainer.strategy is fsdp, but kdlab trains under ddp (or auto) only"),
    "spawned processes": (["--trainer.strategy", "ddp_spawn"], "trainer.strategy is ddp_spawn, but kdlab trains under ddp"),
    "split networks, by class": (
        ["--trainer.strategy", "lightning.pytorch.strategies.FSDPStrategy"], "FSDPStrategy, but kdlab trains under ddp"
    ),
    "batch norm over processes on a CPU": (
        ["--config", "run/ddp", "--config", "run/sync_bn"],
        "trainer.sync_batchnorm is true, but PyTorch's SyncBatchNorm works on GPUs only",
    ),
    "negative devices": (["--trainer.devices", "-3"], "should be an int > 0; set --trainer.devices to a number"),
    "rehearsal of a run that is continued": (
        ["--trainer.fast_dev_run", "1", "--ckpt_path", "last"], "trainer.fast_dev_run continues no run; leave it out"
    ),
    "no devices": (["--trainer.devices", "0"], "is not a valid input using cpu accelerator; set --trainer.devices to a"),
    "negative split seed": (["--data.split_seed", "-1"], "data.split_seed is -1; give an integer of 0 or more"),
    "nodes without a launcher": (["--trainer.num_nodes", "2"], "num_nodes is 2, but nothing says which node this is"),
    "no loggers at all": (["--trainer.barebones", "true"], "trainer.barebones is true, but without loggers"),
    "seed that is a truth": (["--seed_everything", "true"], "seed_everything: expected int; given True"),
    "part of a logger that is not there": (["--trainer.logger.mode", "offline"], "trainer.logger: no logger; add --config run/wandb"),
    "unknown logger": (["--trainer.logger", "foo"], "trainer.logger: no logger; add --config run/wandb or"),
    "option that is like none": (["--foo", "3"], "there is no option --foo"),
    "negative epochs": (["--trainer.max_epochs", "-5"], "trainer.max_epochs is -5, but a run has 1 to"),
    "huge seed": (["--seed_everything", "99999999999"], "must be an integer of 0 or more, below 2^32"),
    "half-precision weights": (["--trainer.precision", "bf16-true"], "trainer.precision is bf16-true, but images come in float32"),
    "negative seed": (["--seed_everything", "-1"], "seed_everything is -1, but it must be an integer of 0 or more"),
    "checkpoint that is not there": (["--ckpt_path", "/nowhere.ckpt"], "ckpt_path is /nowhere.ckpt, but there is no such"),
    "folder that cannot be made": (["--runs_dir", "/proc/nowhere"], "cannot be written"),
    "name of another place": (["--name", "a/../../b"], "name is a/../../b, which leads out of runs_dir; set --runs_dir"),
    "null for a number": (["--data.batch_size", "null"], "data.batch_size is null, but Digits needs a value; give one, or leave"),
    "null for a class": (["--model.optimizer", "null"], "model.optimizer is null, but LogitMatching needs a value"),
    "no number of epochs for a schedule": (["--trainer.max_epochs", "null"], "T_max is null, but CosineAnnealingLR needs"),
    "infinite learning rate": (["--model.optimizer.lr", "1e400"], "model.optimizer.lr is inf, but expected is a finite number"),
    "mean that is no number": (["--data.mean", "[.nan]"], "data.mean[0] is nan, but expected is a finite number"),
    "value with a dash": (["--model.optimizer.lr", "-inf"], "has no value; give one (one that begins with - after an =, as in"),
    "empty value": (["--data.batch_size", ""], "data.batch_size: expected int; given ''"),
    "list for a number": (["--model.optimizer.lr", "[1]"], "model.optimizer.lr: expected float; given [1]"),
    "endless nesting": (["--data.batch_size", "[" * 3000], "data.batch_size: expected int; given [[["),
    "temperature whose square overflows": (["--model.temperature", "1e308"], "temperature is 1e+308, with which float32 overflows"),
    "double precision by its short name": (["--trainer.precision", "64"], "trainer.precision is 64, but images come in float32"),
    "no batch to accumulate": (["--trainer.accumulate_grad_batches", "0"], "accumulate_grad_batches is 0; give 1 or more"),
    "validation every -1 epochs": (["--trainer.check_val_every_n_epoch", "-1"], "check_val_every_n_epoch is -1; give 1 or more"),
    "negative clipping": (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val is -1; give 0 or more"),
    "no batch to train on": (["--trainer.limit_train_batches", "0"], "limit_train_batches is 0, which leaves nothing to do"),
    "no step": (["--trainer.max_steps", "0"], "trainer.max_steps is 0, which leaves nothing to do"),
    "nothing left to train on": (["--data.val_fraction", "0.99999"], "data.val_fraction 0.99999 leaves no image to train on"),
    "loss as a student": (["--model.student", "kdlab.losses.SoftTargets"], "SoftTargets cannot read 1x8x8 images"),
    "data as a loss": (["--model.logit_loss", "Digits"], "model.logit_loss: Digits is a class of another kind than is needed"),
    "mixing as an augmentation": (["--data.augmentation", "Mixup"], "data.augmentation: Mixup is a class of another kind"),
    "optimizer as a student": (["--model.student", "torch.optim.SGD"], "model.student: torch.optim.SGD is no Module"),
    "network as an optimizer": (["--model.optimizer", "torch.nn.Linear"], "model.optimizer: torch.nn.Linear is no Optimizer"),
    "file that is not there as a student": (["--model.student", "nosuch.yaml"], "model.student: there is no file nosuch.yaml; its path"),
    "text file as a student": (["--model.student", "/etc/passwd"], "/etc/passwd names no class; give a class, or a YAML file"),
    "no import path": (["--model.student", "a..b"], "model.student: a..b is no class; name it as module.Class"),
    "network of negative width": (
        ["--model.student", "{class_path: kdlab.models.DigitsConv, init_args: {widths: [-1, 2, 3]}}"],
        "DigitsConv cannot be built with these arguments: Trying to create tensor with negative dimension -1",
    ),
    "network larger than memory": (
        ["--model.student", "{class_path: kdlab.models.DigitsConv, init_args: {widths: [99999999999, 2, 3]}}"],
        "DigitsConv cannot be built with these arguments: ",
    ),
    "schedule that watches a metric": (
        ["--model.lr_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"],
        "model.lr_scheduler is ReduceLROnPlateau, which needs a metric to watch",
    ),
    "misspelt profiler": (
        ["--trainer.callbacks+=LatencyProfilr"],
        "trainer.callbacks: there is no class LatencyProfilr; did you mean LatencyProfiler",
    ),
    "callback without its arguments": (["--trainer.callbacks", "[EarlyStopping]"], "trainer.callbacks: monitor missing"),
    "folder as a name": (["--name", "."], "name is '.', which is no name of a folder"),
    "name longer than file systems take": (["--name", "x" * 300], "which is no name of a folder"),
    "name of two lines": (["--name", "a\nb"], "name is 'a\\nb', which is no name of a folder"),
    "overlay that is not there": (["--config", "run/smok"], "there is no config run/smok; did you mean run/smoke"),
}  # fmt: skip


def the_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The message on stderr, which must be one line and no traceback."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("kdlab: error: ")]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    assert not any("Traceback" in line for line in lines)
    return errors[0]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_and_leaves_nothing(
    mistake: str, tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = MISTAKES[mistake]
    teacher = ["--model.teacher.checkpoint", str(digits_teacher), "--model.teacher.recipe", "null"]
    teacher = [] if "--model" in arguments or "--model.teacher" in arguments else teacher
    runs = tmp_path / "runs"
    code = main(["fit", "--config", "digits/logit_matching", "--runs_dir", str(runs), *teacher, *arguments])
    assert code == 2
    assert expected in the_error(capsys)
    assert not runs.exists()


CONFIG_MISTAKES = {
    "unknown key": ({"model": {"init_args": {"temprature": 3}}}, "LogitMatching has no temprature; did you mean temperature?"),
    "unknown part": ({"modle": {"alpha": 1}}, "modle"),
    "wrong type": ({"data": {"init_args": {"batch_size": [1]}}}, "data.batch_size: expected int; given [1]"),
    "null for a section": ({"trainer": None}, "trainer holds no keys; give it some, or leave it out"),
    "number for a section": ({"model": 3}, "model: expected a Method: class_path and init_args; given 3"),
    "no class": ({"model": ""}, "model: there is no class ''"),
    "no arguments": ({"model": {"init_args": None}}, "overlay.yaml, line 2: init_args holds no keys; give the arguments"),
    "number for a class": ({"model": {"class_path": 3}}, "overlay.yaml, line 2: class_path is no name; give that of a class"),
    "class of another kind": ({"model": {"class_path": "SoftTargets"}}, "model: SoftTargets is a class of another kind"),
    "module for a class": ({"model": {"init_args": {"student": "os"}}}, "model.student: there is no class os; name it as"),
    "null for the folder of all runs": ({"experiment": "x", "runs_dir": None}, "runs_dir is None, which is no folder"),
    "config in a config": ({"config": 3}, "overlay.yaml has the key config, which means nothing in a file"),
    "number for a key": ({1: 2}, "a key of the config is 1, but keys are words"),
    "unknown section": ({"modell": {"alpha": 1}}, "a config has no key modell; did you mean model?"),
    "file that includes itself": ({"model": {"init_args": {"student": "overlay.yaml"}}}, "overlay.yaml includes itself"),
    "list": ([3], "holds no keys; a config has the sections model, data and trainer"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CONFIG_MISTAKES)
def test_a_mistake_in_a_config_file_ends_in_one_line(
    mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = CONFIG_MISTAKES[mistake]
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(content))
    runs = tmp_path / "runs"
    place = [] if "runs_dir" in content else ["--runs_dir", str(runs)]
    assert main(["fit", "--config", "digits/logit_matching", "--config", str(overlay), *place]) == 2
    assert expected in the_error(capsys)
    assert not runs.exists()


def test_a_file_that_is_no_yaml_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [\n")
    assert main(["fit", "--config", str(broken)]) == 2
    assert "broken.yaml, line 2: no valid YAML" in the_error(capsys)


def test_a_key_given_twice_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "twice.yaml").write_text("trainer:\n  max_epochs: 1\n  max_epochs: 2\n")
    assert main(["fit", "--config", str(tmp_path / "twice.yaml")]) == 2
    assert "twice.yaml, line 3: max_epochs is given a second time" in the_error(capsys)


def test_a_schedule_that_fails_at_its_first_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    schedule = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 0}}"
    arguments = [
        "fit",
        "--config",
        "digits/independent",
        "--trainer.fast_dev_run",
        "1",
        "--model.lr_scheduler",
        schedule,
    ]
    assert main(arguments) == 2
    assert "model.lr_scheduler: ZeroDivisionError: integer modulo by zero; see the schedule's" in the_error(capsys)


def test_a_student_that_never_learnt_is_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_time = ["--trainer.max_time", "00:00:00:00", "--runs_dir", str(tmp_path)]
    assert main(["fit", "--config", "digits/independent", *no_time]) == 2
    assert "training ended before its first step, so there is no student; raise trainer.max_time (it is" in the_error(
        capsys
    )
    assert not list(tmp_path.rglob("result.json"))
    assert not list(tmp_path.rglob("student.safetensors"))


def test_an_unknown_verb_is_answered_with_a_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fti", "--config", "digits/independent"]) == 2
    assert "there is no verb fti; did you mean fit?" in the_error(capsys)


def test_a_student_that_is_not_there_is_answered_with_the_way_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["test", "--config", "digits/independent", "--ckpt_path", str(tmp_path / "none.safetensors")]
    assert main(arguments) == 4
    assert "Train it with `fit`, or name other weights with --ckpt_path" in the_error(capsys)


def test_a_missing_config_is_answered_with_close_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "digits/logit_macthing"]) == 2
    assert "did you mean digits/logit_matching" in the_error(capsys)


def test_a_config_without_its_option_is_answered_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "digits/independent"]) == 2
    assert "digits/independent is no option; for a config: kdlab fit --config digits/independent" in the_error(capsys)


def test_validation_without_images_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--config", "digits/independent", "--data.val_fraction", "0"]) == 2
    assert "data.val_fraction is 0, so there are no validation images" in the_error(capsys)


@pytest.mark.parametrize(("name", "value"), [("MASTER_PORT", "99999"), ("WORLD_SIZE", "abc"), ("RANK", "-1")])
def test_a_launchers_variable_that_is_no_number_is_named(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["fit", "--config", "digits/independent", "--config", "run/ddp", "--runs_dir", str(tmp_path)]) == 2
    assert f"{name} is '{value}' in the environment, expected a number up to" in the_error(capsys)
    assert not list(tmp_path.iterdir())


def test_an_option_before_the_verb_is_answered_with_the_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "digits/independent", "fit"]) == 2
    assert "--config comes before fit, but the verb comes first: python -m kdlab fit ..." in the_error(capsys)


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_without_a_config_the_message_says_how_to_give_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 2
    assert "give --config FILE" in the_error(capsys)


def test_a_missing_teacher_without_a_recipe_is_answered_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = ["--model.teacher.recipe", "null", "--model.teacher.checkpoint", str(tmp_path / "no.pt")]
    assert main(["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path / "runs"), *teacher]) == 4
    assert "python -m kdlab fit --config" in the_error(capsys)
    assert not (tmp_path / "runs").exists()


def test_a_damaged_teacher_is_refused(tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "teacher.safetensors"
    damaged.write_bytes(digits_teacher.read_bytes()[:1000])
    teacher = ["--model.teacher.recipe", "null", "--model.teacher.checkpoint", str(damaged)]
    assert main(["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path / "runs"), *teacher]) == 4
    assert "damaged" in the_error(capsys)


def test_a_flipped_bit_in_a_teacher_is_found(
    tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(digits_teacher.read_bytes())
    content[-1000] ^= 1
    damaged = tmp_path / "teacher.safetensors"
    damaged.write_bytes(content)
    teacher = ["--model.teacher.recipe", "null", "--model.teacher.checkpoint", str(damaged)]
    assert main(["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path / "runs"), *teacher]) == 4
    assert "damaged" in the_error(capsys)


def test_missing_data_without_network_are_named_with_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train: Tried a, b")

    monkeypatch.setattr("torchvision.datasets.MNIST.download", refuse)
    data = ["--data.data_dir", str(tmp_path / "data")]
    assert main(["fit", "--config", "mnist/independent", "--runs_dir", str(tmp_path / "runs"), *data]) == 4
    assert f"MNIST is not in {tmp_path / 'data' / 'mnist'}" in the_error(capsys)
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_no_number_stops_the_run_with_its_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--model.optimizer.lr", "1e30"]
    assert main(arguments) == 5
    assert "at step 1 (epoch 0)" in the_error(capsys)
    assert not (tmp_path / "digits" / "independent-seed0" / "student.safetensors").exists()


def test_a_bug_keeps_its_traceback_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdlab.methods.training_log.check_finite", None)  # called by kdlab's own code
    assert main(["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "This is a bug of kdlab" in err


def test_the_debug_variable_shows_the_traceback_of_a_user_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDLAB_DEBUG", "1")
    assert main(["fit", "--config", "digits/logit_matching", "--model.temperature", "-1"]) == 2
    assert "Traceback" in capsys.readouterr().err
