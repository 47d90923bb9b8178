"""The main job through the command line: train, test, table, run folder."""

import csv
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from kdlab.cli import main
from kdlab.run import recipes
from kdlab.run.folder import RunFolder

SHORT = ["--trainer.max_epochs", "2"]


def with_teacher(checkpoint: Path) -> list[str]:
    return ["--model.teacher.checkpoint", str(checkpoint), "--model.teacher.recipe", "null"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits_teacher: Path) -> RunFolder:
    """A distilled student of two epochs; do not change it."""
    runs = tmp_path_factory.mktemp("runs")
    before, sys.argv = sys.argv, ["kdlab"]
    arguments = ["fit", "--config", "digits/logit_matching", "--runs_dir", str(runs), *SHORT]
    assert main([*arguments, *with_teacher(digits_teacher)]) == 0
    sys.argv = before
    return RunFolder(runs / "digits" / "logit_matching-seed0")


def test_the_run_folder_holds_what_the_docs_say(finished: RunFolder) -> None:
    files = {path.relative_to(finished.path).as_posix() for path in finished.path.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "metrics.csv", "log.txt", "result.json", "student.safetensors",
        "checkpoints/last.ckpt", "checkpoints/best.safetensors",
    } <= files  # fmt: skip
    assert not [name for name in files if name.endswith(".part")]
    assert not (finished.path / "owner.json").exists()


def test_the_result_tells_numbers_protocol_and_origin(finished: RunFolder) -> None:
    result = json.loads(finished.result.read_text())
    own = {"accuracy", "top5", "nll", "ece", "brier"}
    fidelity = {"agreement", "teacher_kl", "same_wrong_rate", "spearman"}
    assert set(result["student"]["test"]) == own | fidelity
    assert set(result["teacher"]["test"]) == own
    assert result["teacher"]["test"]["accuracy"] > 0.9
    assert result["student"]["parameters"] == 2410
    assert result["protocol"]["selection"] == "best validation epoch"
    assert result["protocol"]["n_tested"] == 360
    matrix = result["student"]["confusion_matrix"]
    assert sum(map(sum, matrix)) == 360
    correct = sum(matrix[i][i] for i in range(10))
    assert result["student"]["test"]["accuracy"] == pytest.approx(correct / 360, abs=1e-6)  # float32 mean
    assert {"teacher/val_accuracy", "teacher/val_entropy"} <= set(result["teacher_check"])
    assert result["seed"] == 0
    assert result["train_seconds"] > 0
    assert {"device", "versions", "git_commit", "command"} <= set(result["environment"])


def test_the_metrics_hold_every_term_and_every_epoch(finished: RunFolder) -> None:
    rows = list(csv.DictReader(finished.metrics.open()))
    epochs = [row for row in rows if row["train/loss"]]
    assert [row["epoch"] for row in epochs] == ["0", "1"]
    for row in epochs:
        total = float(row["train/label_loss"]) + float(row["train/logit_loss"])
        assert float(row["train/loss"]) == pytest.approx(total, rel=1e-5)  # float32 sums of 21 steps
    validated = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert len(validated) == 2
    selected = json.loads(finished.result.read_text())["student"]["val"]
    assert selected == {"accuracy": pytest.approx(max(validated), abs=1e-6)}
    assert len([row for row in rows if row["test/accuracy"]]) == 1


def test_the_student_file_is_the_bare_student_of_the_best_epoch(finished: RunFolder) -> None:
    with safe_open(finished.student, framework="pt") as file:
        names, card = set(file.keys()), json.loads(file.metadata()["kdlab"])
    assert names == {"hidden.0.weight", "hidden.0.bias", "classifier.weight", "classifier.bias"}
    rows = [row for row in csv.DictReader(finished.metrics.open()) if row["val/accuracy"]]
    accuracies = [float(row["val/accuracy"]) for row in rows]
    assert card["epoch"] == accuracies.index(max(accuracies))
    assert card["config"]["seed_everything"] == 0


def test_the_saved_config_runs_again_and_gives_the_same_student(finished: RunFolder, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(finished.config), "--runs_dir", str(tmp_path)]) == 0
    again = RunFolder(tmp_path / "digits" / "logit_matching-seed0")
    assert again.student.read_bytes() == finished.student.read_bytes()
    assert again.metrics.read_text() == finished.metrics.read_text()


def test_the_saved_config_of_averaged_weights_runs_again(tmp_path: Path) -> None:
    short = ["--profile", "false", "--runs_dir", str(tmp_path), "--trainer.limit_train_batches", "0.5"]
    averaged = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.1"]
    assert main(["fit", "--config", "digits/independent", "--trainer.max_epochs", "3", *averaged, *short]) == 0
    first = RunFolder(tmp_path / "digits" / "independent-seed0")
    assert main(["fit", "--config", str(first.config), *short, "--name", "again"]) == 0
    again = RunFolder(tmp_path / "digits" / "again")
    assert again.student.read_bytes() == first.student.read_bytes()
    assert json.loads(first.result.read_text())["protocol"]["limit_train_batches"] == 0.5  # of the images


def test_a_second_run_gets_a_folder_of_its_own(finished: RunFolder, tmp_path: Path) -> None:
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    assert main(arguments) == 0
    first = (tmp_path / "digits" / "independent-seed0" / "result.json").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "digits" / "independent-seed0" / "result.json").read_bytes() == first
    assert (tmp_path / "digits" / "independent-seed0-2" / "result.json").exists()


def test_test_and_validate_read_the_run_folder(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--config", str(finished.config)]) == 0
    table = capsys.readouterr().out
    result = json.loads(finished.result.read_text())
    assert f"{100 * result['student']['test']['accuracy']:.2f}" in table
    assert "2,410" in table
    assert main(["validate", "--config", str(finished.config)]) == 0
    assert "val/accuracy" in capsys.readouterr().out


def test_predict_writes_one_line_per_test_image(finished: RunFolder) -> None:
    assert main(["predict", "--config", str(finished.config)]) == 0
    rows = list(csv.DictReader((finished.path / "predictions.csv").open()))
    assert len(rows) == 360
    correct = sum(row["label"] == row["prediction"] for row in rows) / 360
    result = json.loads(finished.result.read_text())
    assert correct == pytest.approx(result["student"]["test"]["accuracy"], abs=1e-6)  # float32 mean


def test_without_validation_the_last_epoch_counts(tmp_path: Path) -> None:
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--data.val_fraction", "0"]
    assert main([*arguments, *SHORT]) == 0
    result = json.loads((tmp_path / "digits" / "independent-seed0" / "result.json").read_text())
    assert result["protocol"]["selection"] == "last epoch"
    assert result["protocol"]["n_train"] == 1437
    assert result["protocol"]["selected_epoch"] == 1
    assert result["student"]["val"] == {"accuracy": None}


def test_the_seed_changes_the_student_and_nothing_else_does(tmp_path: Path) -> None:
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), *SHORT]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*arguments, "--name", name, "--seed_everything", seed]) == 0
    a, b, c = ((tmp_path / "digits" / name / "student.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from kdlab.run.folder import RunFolder\n"
        "folder = RunFolder(sys.argv[1]); folder.claim(); print(1, flush=True); input()"
    )
    folder = tmp_path / "digits" / "independent-seed0"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert main(["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), *SHORT]) == 3
        owner.communicate("\n")
    assert f"belongs to a running process (process {owner.pid} on" in capsys.readouterr().err


def run_in_a_fork(command: list[str], environment: dict[str, str]) -> int:
    """What `kdlab.run.recipes` does, without 12 seconds of imports."""
    assert command[1:3] == ["-m", "kdlab"]
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(main(command[3:])))
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def test_a_recipe_runs_in_a_process_of_its_own_and_its_exit_code_counts() -> None:
    program = "import os; raise SystemExit(int(os.environ['CODE']))"
    assert recipes._run([sys.executable, "-c", program], {"CODE": "5"}) == 5


def test_a_missing_teacher_is_trained_once_by_its_recipe_and_a_changed_recipe_stops_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load(Path(__file__).parents[2].joinpath("configs/digits/teacher.yaml").read_text())
    recipe["model"]["init_args"]["student"] = {
        "class_path": "kdlab.models.DigitsConv", "init_args": {"widths": [32, 64, 64]},
    }  # fmt: skip
    recipe["trainer"]["max_epochs"] = 2
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    checkpoint = tmp_path / "runs" / "digits" / "t" / "student.safetensors"
    arguments = ["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path / "runs"), *SHORT]
    arguments += ["--model.teacher.checkpoint", str(checkpoint), "--model.teacher.recipe", str(path)]
    monkeypatch.setattr(recipes, "_run", run_in_a_fork)

    assert main([*arguments, "--name", "first"]) == 0
    err = capsys.readouterr().err
    assert "is not there yet: training it first" in err
    trained = checkpoint.read_bytes()
    assert json.loads((checkpoint.parent / "result.json").read_text())["method"] == "IndependentStudent"

    assert main([*arguments, "--name", "second"]) == 0
    assert "training it first" not in capsys.readouterr().err
    assert checkpoint.read_bytes() == trained

    recipe["trainer"]["max_epochs"] = 3
    path.write_text(yaml.safe_dump(recipe))
    assert main([*arguments, "--name", "third"]) == 4
    assert "trainer.max_epochs was 2, is 3" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "digits" / "third").exists()


def test_python_m_kdlab_without_arguments_says_what_to_do(tmp_path: Path) -> None:
    shown = subprocess.run([sys.executable, "-m", "kdlab"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert shown.returncode == 2
    assert "python -m kdlab fit --config configs/digits/logit_matching.yaml" in shown.stdout


def test_the_help_of_every_verb_fits_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("fit", "validate", "test", "predict"):
        assert main([verb, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) < 45
        assert any("--model.temperature 2" in line for line in lines)
    assert main(["fit", "--help_all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 200


def test_a_student_of_a_users_own_module_needs_no_argument_but_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["from torch import nn", "class Line(nn.Sequential):", "    def __init__(self, num_classes: int):",
             "        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))"]  # fmt: skip
    (tmp_path / "own_networks.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path / "runs"), *SHORT]
    overlay = tmp_path / "own.yaml"
    overlay.write_text("model: {init_args: {student: {class_path: own_networks.Line}}}")
    assert main([*arguments, "--config", str(overlay), "--trainer.log_every_n_steps", "0"]) == 0


def test_fast_dev_run_writes_nothing(tmp_path: Path, digits_teacher: Path) -> None:
    arguments = ["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path / "runs")]
    assert main([*arguments, *with_teacher(digits_teacher), "--trainer.fast_dev_run", "true"]) == 0
    assert not (tmp_path / "runs").exists()


def test_no_environment_variable_of_a_run_stays_behind(finished: RunFolder) -> None:
    assert "LOCAL_RANK" not in os.environ


def test_a_run_ends_with_what_the_student_costs(
    tmp_path: Path, digits_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path), *SHORT]
    assert main([*arguments, *with_teacher(digits_teacher), "--profile", "true"]) == 0
    table = capsys.readouterr().out
    for header in ("agrees %", "ECE", "parameters", "MACs M", "ms p50", "ms p99", "size MiB", "mJ/image"):
        assert header in table
    folder = RunFolder(tmp_path / "digits" / "logit_matching-seed0")
    result = json.loads(folder.result.read_text())
    assert result["profile"]["size"]["parameters"] == 2410
    assert result["profile"]["macs"]["macs"] == 64 * 32 + 32 * 10
    assert result["profile"]["latency"]["runs"][0]["latency_ms_p50"] > 0
    energy = result["profile"]["energy"]
    assert energy["energy_mj_per_image"] is not None or "reason" in energy
    assert result["training_cost"]["train_s"] > 0
    assert "profile/" not in folder.metrics.read_text()


def test_with_noisy_labels_the_result_says_what_both_networks_made_of_them(
    tmp_path: Path, digits_teacher: Path
) -> None:
    arguments = ["fit", "--config", "digits/logit_matching", "--runs_dir", str(tmp_path), "--trainer.max_epochs", "1",
                 "--data.label_noise", "0.1", "--model.teacher.checkpoint", str(digits_teacher),
                 "--model.teacher.recipe", "null"]  # fmt: skip
    assert main(arguments) == 0
    result = json.loads((tmp_path / "digits" / "logit_matching-seed0" / "result.json").read_text())
    assert result["student"]["noise"]["n_noisy"] == result["teacher"]["noise"]["n_noisy"] == 129
    assert result["teacher"]["noise"]["corrected_rate"] > 0.9  # it was trained on true labels


@pytest.mark.parametrize("batches", ["2", "2.0"])  # what a parser makes of 2 depends on who was imported first
def test_a_rehearsal_trains_no_missing_teacher(
    batches: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*_: object) -> None:
        raise AssertionError("the teacher was trained")

    monkeypatch.setattr("kdlab.run.recipes.provide_teacher", refused)
    arguments = ["fit", "--config", "digits/logit_matching", "--trainer.max_epochs", "1"]
    assert main([*arguments, "--trainer.limit_train_batches", batches]) == 0
    assert "an untrained one stands in" in capsys.readouterr().err


def test_validation_once_per_epoch_by_whichever_number(tmp_path: Path) -> None:
    """Lightning takes the integer 1 for after every batch."""
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    assert main([*arguments, "--trainer.val_check_interval", "1", "--profile", "false"]) == 0
    rows = (tmp_path / "digits" / "independent-seed0" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/accuracy")
    assert sum(bool(row.split(",")[column]) for row in rows[1:]) == 1


def test_accumulated_batches_write_one_row_for_each_step(tmp_path: Path) -> None:
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--trainer.max_epochs", "1"]
    arguments += ["--trainer.accumulate_grad_batches", "4", "--trainer.log_every_n_steps", "1", "--profile", "false"]
    assert main(arguments) == 0
    rows = (tmp_path / "digits" / "independent-seed0" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss_step")
    assert sum(bool(row.split(",")[column]) for row in rows[1:]) == 6  # 20 batches of 64, and one more
