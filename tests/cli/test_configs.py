"""Every config that is shipped runs, for two batches, through the command line."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import kdlab.methods
from kdlab.cli import main
from kdlab.methods import FeatureMatching, Method

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = ("models", "teachers", "trainers", "run", "studies", "sweeps")  # included, laid over, or of another verb
RUNS = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.glob("*/*.yaml") if p.parent.name not in PARTS)
DATA_SETS = ("digits", "mnist", "cifar100")
BASES = (Method, FeatureMatching)  # what methods are made of, not methods that a paper describes
LOGIT_LOSSES = ("decoupled_kd", "dist", "multi_level_kd")
TEACHERS = ("teacher_ensemble", "ema_teacher", "born_again", "teacher_assistant", "weak_teacher")

# Two images are the smallest batch that has relations, and batch norm. ResNet32x4 takes its time on a processor.
SMALL = ["--data.batch_size", "2", "--data.eval_batch_size", "2"]
SHORT = ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder without `runs`: no teacher is trained, and untrained ones stand in, whatever was run before."""
    monkeypatch.chdir(tmp_path)


def read(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text())
    return config


@pytest.mark.parametrize("name", RUNS)
def test_config_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arguments = ["fit", "--config", name, "--config", "run/smoke", "--runs_dir", str(tmp_path / "out"), *SMALL, *SHORT]
    if not name.startswith("digits"):
        real = request.getfixturevalue("real_data_dir")
        if name.startswith("fashion_mnist"):  # the digits, in files of the same shape
            (tmp_path / "FashionMNIST").symlink_to(real / "MNIST")
            real = tmp_path
        arguments += ["--data.data_dir", str(real)]
    if "hint_epochs" in read(name)["model"]["init_args"]:
        arguments += ["--model.hint_epochs", "1", "--trainer.max_epochs", "2"]  # one epoch for each stage
    assert main(arguments) == 0
    seed = read(name).get("seed_everything", 0)
    assert (tmp_path / "out" / name.split("/")[0] / f"{Path(name).stem}-seed{seed}" / "result.json").exists()


PRINTED = [pytest.param(name, marks=() if name.startswith("digits") else pytest.mark.slow) for name in RUNS]


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_config_prints_is_a_config_and_prints_itself(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", name, "--print_config"]) == 0
    printed = capsys.readouterr().out
    whole = yaml.safe_load(printed)
    assert {"seed_everything", "trainer", "model", "data", "profile", "runs_dir"} <= set(whole)
    assert {"batch_size", "val_fraction", "split_seed"} <= set(whole["data"]["init_args"])  # defaults too
    path = tmp_path / "printed.yaml"
    path.write_text(printed)
    assert main(["fit", "--config", str(path), "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == whole


@pytest.mark.parametrize("data", DATA_SETS)
def test_every_method_has_a_config_on_every_data_set(data: str) -> None:
    methods = {name for name in kdlab.methods.__all__ if getattr(kdlab.methods, name) not in BASES}
    assert methods <= {read(name)["model"]["class_path"] for name in RUNS if name.startswith(f"{data}/")}


@pytest.mark.parametrize("data", [*DATA_SETS, "fashion_mnist"])
def test_every_data_set_has_a_teacher_a_baseline_and_logit_matching(data: str) -> None:
    assert {f"{data}/{job}.yaml" for job in ("teacher", "independent", "logit_matching")} <= set(RUNS)


@pytest.mark.parametrize("data", ["digits", "cifar100"])
@pytest.mark.parametrize("job", [*LOGIT_LOSSES, *TEACHERS, "function_matching"])
def test_variants_of_logit_matching_need_no_class_of_their_own(data: str, job: str) -> None:
    assert read(f"{data}/{job}.yaml")["model"]["class_path"] == "LogitMatching"


def teachers(node: object) -> list[dict[str, Any]]:
    """The arguments of every teacher with a recipe, parts included."""
    if isinstance(node, str) and node.startswith("../teachers/"):
        return teachers(read(node.removeprefix("../")))
    if isinstance(node, list):
        return [found for item in node for found in teachers(item)]
    if not isinstance(node, dict):
        return []
    own = [node] if "recipe" in node else []
    return own + [found for item in node.values() for found in teachers(item)]


def recipe_of(teacher: dict[str, Any]) -> str:
    """The config that trains a teacher, as a name in RUNS."""
    return str(teacher["recipe"]).removeprefix("configs/")


@pytest.mark.parametrize("name", [name for name in RUNS if teachers(read(name))])
def test_teacher_is_what_its_recipe_trains_and_lies_where_it_is_written(name: str) -> None:
    for teacher in teachers(read(name)):
        recipe = recipe_of(teacher)
        made = read(recipe)  # fails if there is no such recipe
        assert teacher["network"] == made["model"]["init_args"]["student"]
        run = f"{recipe.removesuffix('.yaml')}-seed{made.get('seed_everything', 0)}"
        assert teacher["checkpoint"] == f"runs/{run}/student.safetensors"


@pytest.mark.parametrize("data", ["digits", "cifar100"])
@pytest.mark.parametrize("job", ["born_again", "teacher_assistant"])
def test_generations_and_assistants_are_chains_of_three_networks(data: str, job: str) -> None:
    (middle,) = teachers(read(f"{data}/{job}.yaml"))
    (first,) = teachers(read(recipe_of(middle)))
    assert not teachers(read(recipe_of(first)))


@pytest.mark.parametrize("name", RUNS)
def test_header_says_what_it_is_and_how_to_run_it(name: str) -> None:
    text = (CONFIGS / name).read_text()
    header = [line for line in text.splitlines()[:6] if line.startswith("# ")]
    assert f"python -m kdlab fit --config configs/{name}" in "\n".join(header)
    assert not header[0].startswith("#   ")
    if read(name)["model"]["class_path"] not in ("IndependentStudent", "SubStudentEnsemble"):
        assert re.search(r"(Paper|Recipe|Source): .*\b(19|20)\d\d\b", "\n".join(header)) or "studies" in header[0]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_config_fits_on_a_screen(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= (85 if path.parent.name == "studies" else 40)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", sorted((CONFIGS / "run").glob("*.yaml")), ids=lambda path: path.name)
def test_overlay_says_how_to_run_and_never_what(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= {"trainer", "runs_dir"}
