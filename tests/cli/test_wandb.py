"""Runs that W&B tracks, through the command line: what its server would get is read back from the offline files."""

import csv
import importlib.util
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from kdlab.cli import main
from kdlab.run.folder import RunFolder

spec = importlib.util.spec_from_file_location("wandb_file", Path(__file__).parents[1] / "run" / "wandb_file.py")
assert spec is not None
assert spec.loader is not None
wandb_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wandb_file)

KEY = "0123456789abcdef0123456789abcdef01234567"  # of nobody
SWEEP = Path(__file__).parents[2] / "configs" / "sweeps" / "digits_logit_matching.yaml"
EPOCHS, STEPS = 2, 21


@pytest.fixture(scope="module", autouse=True)
def nobodys_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A key that must not appear anywhere, no settings, and no service of an earlier test."""
    place = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("NETRC", str(place / "netrc"))
        patch.setenv("WANDB_CONFIG_DIR", str(place / "config"))
        patch.setenv("WANDB_CACHE_DIR", str(place / "cache"))
        wandb.teardown()
        yield
        wandb.teardown()


def command(runs: Path, teacher: Path, *more: str) -> list[str]:
    return ["fit", "--config", "digits/logit_matching", "--trainer.max_epochs", str(EPOCHS), "--runs_dir", str(runs),
            "--name", "run", "--model.teacher.checkpoint", str(teacher), "--model.teacher.recipe", "null", *more]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits_teacher: Path) -> RunFolder:
    """A finished run that was tracked, with two profilers."""
    runs = tmp_path_factory.mktemp("runs")
    profilers = ["--trainer.callbacks+=kdlab.profiling.ModelSizeProfiler"]
    assert main(command(runs, digits_teacher, "--config", "run/wandb", *profilers)) == 0
    return RunFolder(runs / "digits" / "run")


@pytest.fixture(scope="module")
def tracked(folder: RunFolder) -> Any:
    (file,) = wandb_file.tracked_files(folder.path)
    return wandb_file.read_wandb(file)


def rows_of(folder: RunFolder) -> list[dict[str, float]]:
    """metrics.csv, without empty cells."""
    with folder.metrics.open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def metrics_of(history: list[dict[str, Any]], columns: set[str]) -> list[dict[str, float]]:
    """Rows of the history as metrics.csv has them; those without a metric of it, such as tables, are left out."""
    rows = [{key: row[key] for key in columns & set(row)} | {"step": row["trainer/global_step"]} for row in history]
    return [row for row in rows if len(row) > 1]


def test_every_metric_of_the_csv_is_there_with_equal_value_and_step(folder: RunFolder, tracked: Any) -> None:
    rows = rows_of(folder)
    assert {"train/label_loss", "train/logit_loss", "train/loss_step", "val/ece", "test/agreement"} <= set().union(
        *rows
    )
    assert metrics_of(tracked.history, set().union(*rows)) == rows


def test_the_config_is_the_one_that_was_resolved(folder: RunFolder, tracked: Any) -> None:
    resolved = yaml.safe_load(folder.config.read_text())
    assert {key: tracked.config[key] for key in resolved} == resolved
    assert (tracked.config["method"], tracked.config["student"]) == ("LogitMatching", "MNISTPerceptron")
    assert tracked.config["dataset"] == "Digits"


def test_the_summary_has_results_and_profile(folder: RunFolder, tracked: Any) -> None:
    result = json.loads(folder.result.read_text())
    for name, value in result["student"]["test"].items():
        assert tracked.summary[f"test/{name}"] == value
    for name, value in result["teacher"]["test"].items():
        assert tracked.summary[f"teacher/test_{name}"] == value
    assert tracked.summary["profile/parameters"] == result["profile"]["size"]["parameters"] == 2410
    assert tracked.summary["train_seconds"] == result["train_seconds"]
    assert tracked.summary["selected/val_accuracy"] == result["student"]["val"]["accuracy"]


def artifact_of_table(tracked: Any, name: str) -> dict[str, Path]:
    """The files of the artifact that a dashboard reads this table from."""
    path = f"{name}.table.json"
    (found,) = (a for a in tracked.artifacts.values() if path in {file.path for file in a.manifest.contents})
    return {file.path: Path(file.local_path) for file in found.manifest.contents}


def table_of(tracked: Any, name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(artifact_of_table(tracked, name)[f"{name}.table.json"].read_text())
    return table


def test_the_tables_are_those_of_the_result(folder: RunFolder, tracked: Any) -> None:
    student = json.loads(folder.result.read_text())["student"]
    matrix = [[0] * 10 for _ in range(10)]
    for label, answer, count in table_of(tracked, "test/confusion_matrix_table")["data"]:
        matrix[int(label)][int(answer)] = count
    assert matrix == student["confusion_matrix"]
    classes = table_of(tracked, "test/per_class")
    assert classes["columns"] == ["class", "images", "precision", "recall", "f1"]
    assert [row[3] for row in classes["data"]] == pytest.approx(student["per_class"]["recall"])
    assert [row[1] for row in classes["data"]] == [sum(row) for row in student["confusion_matrix"]]


def test_there_are_diagrams_of_student_and_teacher(folder: RunFolder, tracked: Any) -> None:
    (file,) = wandb_file.tracked_files(folder.path)
    for role in ("student", "teacher"):
        picture = Image.open(file.parent / "files" / tracked.summary[f"test/reliability_{role}/path"])
        assert min(picture.size) > 300
        assert np.asarray(picture).std() > 10  # something is drawn


def test_the_examples_show_both_answers_beside_the_image(folder: RunFolder, tracked: Any) -> None:
    from kdlab.data import Digits

    test = Digits().test_split
    table = table_of(tracked, "test/examples")
    assert table["columns"] == ["index", "image", "label", "student", "student probability", "teacher",
                                "teacher probability"]  # fmt: skip
    assert len(table["data"]) == 36
    wrong = [row for row in table["data"] if row[2] != row[3]]
    matrix = np.array(json.loads(folder.result.read_text())["student"]["confusion_matrix"])
    assert len(wrong) == min(24, matrix.sum() - np.trace(matrix))
    assert table["data"][: len(wrong)] == wrong
    assert [row[0] for row in wrong] == sorted(row[0] for row in wrong)
    files = artifact_of_table(tracked, "test/examples")
    for index, image, label, *_ in table["data"]:
        assert test.labels[index] == int(label)
        shown = np.asarray(Image.open(files[image["path"]]).convert("L"))
        assert np.array_equal(shown, test.images[index, 0].numpy())


def test_the_student_is_an_artifact_that_names_its_teacher(
    folder: RunFolder, tracked: Any, digits_teacher: Path
) -> None:
    result = json.loads(folder.result.read_text())
    student = tracked.artifacts["digits-run"]
    assert student.type == "model"
    (file,) = student.manifest.contents
    assert Path(file.local_path).samefile(folder.student)
    metadata = json.loads(student.metadata)
    assert metadata["weights_sha256"] == result["student"]["weights_sha256"]
    assert metadata["teacher"]["artifact"] == "digits-t"
    assert metadata["teacher"]["weights_sha256"] == result["teacher"]["weights_sha256"]
    assert metadata["teacher"]["checkpoint"] == str(digits_teacher)
    assert tracked.config["teacher_artifact"] == metadata["teacher"]
    report = tracked.artifacts["digits-run-report"]
    assert {file.path for file in report.manifest.contents} == {"config.yaml", "result.json"}


def test_all_files_lie_in_the_run_folder(folder: RunFolder, tracked: Any) -> None:
    places = [Path(f.local_path) for artifact in tracked.artifacts.values() for f in artifact.manifest.contents]
    assert len(places) > 36
    assert all(folder.path.resolve() in place.resolve().parents and place.is_file() for place in places)


def test_the_key_is_written_nowhere(folder: RunFolder) -> None:
    for path in folder.path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in wandb_file.written(path), path


def test_being_tracked_changes_no_number(folder: RunFolder, tmp_path: Path, digits_teacher: Path) -> None:
    assert main(command(tmp_path, digits_teacher)) == 0
    plain = RunFolder(tmp_path / "digits" / "run")
    assert plain.student.read_bytes() == folder.student.read_bytes()
    assert plain.metrics.read_bytes() == folder.metrics.read_bytes()
    assert not (plain.path / "wandb").exists()


def test_a_training_goes_on_where_the_server_that_was_asked_for_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", f"http://user:geheim@{address}")
    monkeypatch.setenv("WANDB_MODE", "online")
    small = ["--trainer.max_epochs", "1", "--data.train_per_class", "10", "--profile", "false"]
    arguments = ["fit", "--config", "digits/independent", "--config", "run/wandb", "--runs_dir", str(tmp_path), *small]
    assert main(arguments) == 0
    run = RunFolder(tmp_path / "digits" / "independent-seed0")
    assert run.log.read_text().count(f"W&B: http://{address} cannot be reached (") == 1
    (file,) = wandb_file.tracked_files(run.path)
    tracked = wandb_file.read_wandb(file)
    assert tracked.exit_code == 0
    assert tracked.summary["test/accuracy"] == json.loads(run.result.read_text())["student"]["test"]["accuracy"]
    said = capfd.readouterr()
    for secret in (KEY, "geheim"):
        assert secret not in said.out + said.err
        assert not [p for p in run.path.rglob("*") if p.is_file() and secret.encode() in wandb_file.written(p)]


def test_a_killed_run_is_readable_and_continues_under_its_id(
    tmp_path: Path,
    digits_teacher: Path,
    folder: RunFolder,
    run_and_kill: Callable[[list[str], str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "0.01")  # not 15 s, after which this run is over
    arguments = command(tmp_path, digits_teacher, "--config", "run/wandb", "--trainer.log_every_n_steps", "1")
    run_and_kill(arguments, "step", STEPS + 5)
    killed = RunFolder(tmp_path / "digits" / "run")
    (file,) = wandb_file.tracked_files(killed.path)
    before = wandb_file.read_wandb(file)  # readable; how much wandb had written by then is up to the machine
    assert before.exit_code is None
    assert before.history
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    after = wandb_file.read_wandb(next(f for f in wandb_file.tracked_files(killed.path) if f != file))
    assert file.parent.name.endswith(after.run.run_id)
    rows = rows_of(killed)
    assert len(rows) > 2 * STEPS
    assert metrics_of(after.history, set().union(*rows)) == rows
    sent_twice = {row["_step"]: row for row in after.history}
    for row in before.history:
        names = {name for name in row if not name.startswith("_")}  # of the clock
        assert metrics_of([row], names) == metrics_of([sent_twice[row["_step"]]], names) != []


def test_what_is_found_out_later_goes_to_the_same_run(folder: RunFolder, tracked: Any) -> None:
    assert main(["export", str(folder.path), "--format", "safetensors"]) == 0
    later = wandb_file.read_wandb(wandb_file.tracked_files(folder.path)[-1])
    assert later.run.run_id == tracked.run.run_id
    assert later.summary["export/safetensors/size_bytes"] > 2410


def test_the_sweep_drives_fit(tmp_path: Path, digits_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `wandb agent` fills in the command, but for its last word on where the server is."""
    sweep = yaml.safe_load(SWEEP.read_text())
    assert sweep["metric"] == {"name": "selected/val_accuracy", "goal": "maximize"}
    args = {name: {"value": space["max"]} for name, space in sweep["parameters"].items()}
    filled = create_sweep_command_args({"args": args}) | {"env": ["/usr/bin/env"]}
    words = [
        word for part in create_sweep_command(sweep["command"])
        for word in (filled[part[2:-1]] if part.startswith("${") else [part])
    ]  # fmt: skip
    env, setting, *python, program, verb = words[:6]
    assert (env, setting, python, program, verb) == (
        "/usr/bin/env",
        "WANDB_MODE=online",
        ["python", "-m"],
        "kdlab",
        "fit",
    )
    monkeypatch.setenv("WANDB_RUN_ID", "sweep001")
    short = ["--trainer.max_epochs", "1", "--runs_dir", str(tmp_path), "--model.teacher.checkpoint", str(digits_teacher),
             "--model.teacher.recipe", "null"]  # fmt: skip
    assert main([verb, *words[6:], *short]) == 0
    (file,) = wandb_file.tracked_files(tmp_path / "digits" / "logit_matching-seed0")
    run = wandb_file.read_wandb(file)
    assert run.run.run_id == "sweep001"
    assert run.config["model"]["init_args"]["alpha"] == 1.0
    assert run.config["model"]["init_args"]["temperature"] == 16.0
    result = json.loads((tmp_path / "digits" / "logit_matching-seed0" / "result.json").read_text())
    assert run.summary["selected/val_accuracy"] == result["student"]["val"]["accuracy"]
