"""Every config that is shipped runs, for two batches, through the command line."""

from pathlib import Path

import pytest
import yaml

from kdlab.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = ("models", "teachers", "trainers", "run")  # included by the others, or laid over them
RUNS = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.glob("*/*.yaml") if p.parent.name not in PARTS)


@pytest.mark.parametrize("name", RUNS)
def test_config_runs(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arguments = ["fit", "--config", name, "--config", "run/smoke", "--runs_dir", str(tmp_path)]
    arguments += ["--data.batch_size", "8", "--data.eval_batch_size", "8"]
    if not name.startswith("digits"):
        arguments += ["--data.data_dir", str(request.getfixturevalue("real_data_dir"))]
    if name.endswith("logit_matching.yaml"):
        arguments += ["--model.teacher.checkpoint", str(tmp_path / "x" / "t" / "student.safetensors")]
    assert main(arguments) == 0
    assert (tmp_path / name.split("/")[0] / f"{Path(name).stem}-seed0" / "result.json").exists()


def test_there_are_configs_for_teacher_baseline_and_distillation_of_each_data_set() -> None:
    wanted = {
        f"{data}/{job}"
        for data in ("digits", "mnist", "cifar100")
        for job in ("teacher", "independent", "logit_matching")
    }
    assert wanted <= {name.removesuffix(".yaml") for name in RUNS}


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_config_fits_on_a_screen(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", sorted((CONFIGS / "run").glob("*.yaml")), ids=lambda path: path.name)
def test_overlay_says_how_to_run_and_never_what(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= {"trainer", "runs_dir"}
