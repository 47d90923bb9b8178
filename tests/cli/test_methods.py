"""Every method through the command line: it learns, resumes exactly after a kill, runs in two processes, composes."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kdlab.cli import main
from kdlab.losses import DecoupledKD, StandardizedSoftTargets
from kdlab.methods import HintTransfer, LogitMatching, Method
from kdlab.run.folder import RunFolder

FEW_IMAGES = ["--data.train_per_class", "30", "--data.batch_size", "32", "--trainer.log_every_n_steps", "0",
              "--profile", "false"]  # fmt: skip
STEPS_PER_EPOCH = 10  # 300 images in batches of 32
OPTIONS = {"fitnet": ["--model.hint_epochs", "1"]}  # the second epoch is stage two's
METHODS = (
    "independent", "logit_matching", "logit_standardization", "decoupled_kd", "hint_transfer", "fitnet",
    "attention_transfer", "similarity_preserving", "relational_kd", "probabilistic_kt", "mutual_learning",
    "teacher_ensemble", "ema_teacher", "sub_student_ensemble", "hint_ensemble",
)  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder in which the teachers that the configs of the digits name are trained by their recipes."""
    folder, before = tmp_path_factory.mktemp("workplace"), Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kdlab"])  # this comes before the fixture of each test
        assert main(["fit", "--config", "digits/teacher", "--profile", "false"]) == 0
        assert main(["fit", "--config", "digits/teacher_seed1", "--profile", "false"]) == 0
    yield folder
    os.chdir(before)


def command(name: str, runs: Path, *more: str) -> list[str]:
    return ["fit", "--config", f"digits/{name}", "--runs_dir", str(runs), "--name", "run", *FEW_IMAGES,
            *OPTIONS.get(name, []), *more]  # fmt: skip


def rows_of(folder: RunFolder, column: str) -> list[float]:
    return [float(row[column]) for row in csv.DictReader(folder.metrics.open()) if row.get(column)]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_goes_on_after_a_kill_as_if_nothing_had_happened(
    name: str,
    tmp_path: Path,
    workplace: Path,
    run_and_kill: Callable[[list[str], str, int], None],
    outcome: Callable[[RunFolder], dict[str, object]],
) -> None:
    epochs = 3 if name in OPTIONS else 2  # a stage is an epoch, and the student learns in the last one
    more = [
        "--trainer.max_epochs",
        str(epochs),
        "--trainer.callbacks+=ResumePoint",
        "--trainer.callbacks.every_n_steps",
        "3",
    ]
    assert main(command(name, tmp_path / "whole", *more)) == 0
    whole = RunFolder(tmp_path / "whole" / "digits" / "run")
    result = json.loads(whole.result.read_text())
    assert result["student"]["test"]["accuracy"] > 0.2  # six standard deviations above guessing
    assert len(rows_of(whole, "train/loss")) == epochs

    arguments = command(name, tmp_path / "killed", *more)
    run_and_kill(arguments, "step", STEPS_PER_EPOCH + 5)  # two steps behind a resume point, in FitNet's stage two
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(RunFolder(tmp_path / "killed" / "digits" / "run")) == outcome(whole)


# -- two processes --------------------------------------------------------------------------------------------


TwoRanks = Callable[..., list[int | None]]


def train_and_save(arguments: list[str], out: Path) -> int:
    """What each of two processes does, as a launcher would start it."""

    def on_train_end(module: Method) -> None:
        trained = {n: p.detach() for n, p in module.named_parameters() if not n.startswith(tuple(module.unsaved()))}
        torch.save(trained, out / f"rank{module.global_rank}.pt")

    setattr(Method, "on_train_end", on_train_end)  # noqa: B010 (mypy refuses to assign to a method)
    return main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_in_two_processes_that_stay_equal(
    name: str, tmp_path: Path, workplace: Path, two_ranks: TwoRanks
) -> None:
    epochs = ["--trainer.max_epochs", "2" if name in OPTIONS else "1"]
    train_in_two_processes(two_ranks, command(name, tmp_path, *epochs), tmp_path)


@pytest.mark.slow
def test_hints_alone_which_reach_a_part_of_the_student_train_in_two_processes(
    tmp_path: Path, workplace: Path, two_ranks: TwoRanks
) -> None:
    train_in_two_processes(
        two_ranks,
        command("hint_transfer", tmp_path, "--model.label_weight", "0", "--trainer.max_epochs", "1"),
        tmp_path,
    )


def train_in_two_processes(two_ranks: TwoRanks, arguments: list[str], tmp_path: Path) -> None:
    """Train for epochs whose last batch is smaller, and compare the ranks' weights."""
    arguments += ["--config", "run/ddp", "--data.batch_size", "37"]
    assert two_ranks(train_and_save, arguments, tmp_path) == [0, 0]
    result = json.loads((tmp_path / "digits" / "run" / "result.json").read_text())
    assert result["world_size"] == 2
    assert result["protocol"]["n_tested"] == 360
    one, other = (torch.load(tmp_path / f"rank{number}.pt", weights_only=True) for number in range(2))
    assert one
    assert all(tensor.equal(other[parameter]) for parameter, tensor in one.items())


# -- composition ----------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Method]:
    """The methods that were trained, the last one last."""
    methods: list[Method] = []
    monkeypatch.setattr(Method, "on_fit_start", lambda method: methods.append(method), raising=False)
    return methods


SHORT = ["--trainer.max_epochs", "2"]


def test_another_loss_is_named_on_the_command_line_and_gets_the_temperature_of_the_config(
    tmp_path: Path, workplace: Path, built: list[Method]
) -> None:
    assert main(command("logit_matching", tmp_path, *SHORT, "--model.logit_loss", "DecoupledKD")) == 0
    (method,) = built
    assert isinstance(method, LogitMatching)
    assert isinstance(method.logit_loss, DecoupledKD)
    assert method.logit_loss.temperature == 2.0
    assert method.logit_loss.beta == 8.0


def test_hints_and_standardised_logits_go_together_by_configuration_only(
    tmp_path: Path, workplace: Path, built: list[Method]
) -> None:
    more = ["--model.logit_weight", "9", "--model.logit_loss", "StandardizedSoftTargets"]
    assert main(command("hint_transfer", tmp_path, *SHORT, *more, "--model.logit_loss.ddof", "0")) == 0
    (method,) = built
    assert isinstance(method, HintTransfer)
    assert isinstance(method.logit_loss, StandardizedSoftTargets)
    assert method.logit_loss.ddof == 0
    folder = RunFolder(tmp_path / "digits" / "run")
    for term in ("label", "hint", "logit"):
        assert len(rows_of(folder, f"train/{term}_loss")) == 2


def test_an_ensemble_of_hint_students_is_a_matter_of_configuration(
    tmp_path: Path, workplace: Path, built: list[Method]
) -> None:
    assert main(command("hint_ensemble", tmp_path, *SHORT)) == 0
    (system,) = built
    members = list(system.methods)  # type: ignore[arg-type]
    assert all(type(member) is HintTransfer for member in members)
    assert len({id(network) for member in members for network in (member.student, member.regressors[0])}) == 4
    first, second = (member.student.state_dict() for member in members)
    assert not any(first[name].equal(second[name]) for name in first if name.endswith("weight"))
    assert system.teacher is members[0].teacher is members[1].teacher
    folder = RunFolder(tmp_path / "digits" / "run")
    for column in ("train/member0_hint_loss", "train/member1_logit_loss", "val/member1_accuracy", "val/disagreement"):
        assert len(rows_of(folder, column)) == 2
    result = json.loads(folder.result.read_text())
    assert {"member0_accuracy", "member1_accuracy", "disagreement"} <= set(result["student"]["test"])


def test_an_ensemble_is_tested_from_its_run_folder(tmp_path: Path, workplace: Path) -> None:
    assert main(command("sub_student_ensemble", tmp_path, *SHORT)) == 0
    folder = RunFolder(tmp_path / "digits" / "run")
    for checkpoint in ("best", "last", str(folder.student)):
        assert main(["test", "--config", str(folder.config), "--ckpt_path", checkpoint]) == 0
    assert main(["predict", "--config", str(folder.config)]) == 0
    rows = list(csv.DictReader((folder.path / "predictions.csv").open()))
    correct = sum(row["label"] == row["prediction"] for row in rows) / 360
    result = json.loads(folder.result.read_text())
    assert correct == pytest.approx(result["student"]["test"]["accuracy"], abs=1e-6)  # float32 mean


OWN_LOSS = '''from torch import Tensor

from kdlab.losses import LogitLoss


class Squares(LogitLoss):
    """Mean squared difference of the logits.

    Args:
        factor: of the loss.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.factor * (student.float() - teacher.float()).square().mean()
'''


def test_a_loss_of_a_users_own_file_is_named_by_its_class_path(
    tmp_path: Path, workplace: Path, built: list[Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_losses.py").write_text(OWN_LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--model.logit_loss", "own_losses.Squares", "--model.logit_loss.factor", "3"]
    arguments = command("logit_matching", tmp_path / "runs", *SHORT, *own, "--model.temperature", "null")
    assert main(arguments) == 0
    (method,) = built
    assert isinstance(method, LogitMatching)
    assert type(method.logit_loss).__name__ == "Squares"
    assert method.logit_loss.factor == 3.0
    config = RunFolder(tmp_path / "runs" / "digits" / "run").config
    assert "own_losses.Squares" in config.read_text()
    assert main(["fit", "--config", str(config), "--runs_dir", str(tmp_path / "again")]) == 0  # as it is


def test_a_temperature_for_a_loss_that_has_none_is_refused_with_the_fix(
    tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_losses.py").write_text(OWN_LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--model.logit_loss", "own_losses.Squares"]
    assert main(command("logit_matching", tmp_path / "runs", *SHORT, *own)) == 2
    errors = capsys.readouterr().err
    assert "temperature is 2, but Squares has no single temperature; set model.temperature: null" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fitnet", ["--model.hint_epochs", "9", *SHORT], "hint_epochs is 9, but the run has 2 epoch(s)"),
        ("hint_transfer", ["--model.student_layers", "[hiden]"], "has no layer 'hiden'; did you mean hidden"),
        ("hint_transfer", ["--model.alpha", "0.5", "--model.label_weight", "1"], "keep one of the two"),
        ("ema_teacher", ["--model.teacher.decay", "1"], "decay is 1, but it is the share that is kept"),
    ],
)
def test_a_users_mistake_ends_in_one_line(
    name: str, options: list[str], message: str, tmp_path: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--config", f"digits/{name}", "--runs_dir", str(tmp_path), *options]
    assert main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kdlab: error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "digits").exists()
