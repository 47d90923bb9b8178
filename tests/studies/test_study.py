"""`python -m kdlab study` from file to report, with real training on the digits."""

import json
import math
import multiprocessing
import os
import random
import re
import signal
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kdlab.cli import main
from kdlab.data import MNIST
from kdlab.errors import IntegrityError, UsageError
from kdlab.studies.configs import ConfigReader
from kdlab.studies.file import read_study
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.planner import make_plan
from kdlab.studies.results import MEASURED, doubts_about
from kdlab.verbs.study import _open, choose, shard

STUDY = {
    "name": "tiny",
    "seeds": [0, 1],
    "set": {"trainer.max_epochs": 2, "profile": False},
    "teachers": {"wide": {"base": "digits/teacher"}},
    "variants": {
        "plain": {"base": "digits/independent"},
        "kd": {
            "base": "digits/logit_matching",
            "set": {"model.teacher": "@wide"},
            "grid": {"model.alpha": [0.1, 0.9]},
        },
    },
    "comparisons": [{"of": "kd", "against": "plain"}],
    "metrics": ["student.test.accuracy", "student.test.nll"],
}


def write(folder: Path, **changes: object) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return str(path)


def results(runs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (runs / "studies" / "tiny").glob("*/result.json")}


def summary(runs: Path) -> str:
    return (runs / "studies" / "tiny" / "report" / "summary.json").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs folder of the finished study; do not change it."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["study", write(runs), "--runs_dir", str(runs)]) == 0
    return runs


@pytest.mark.slow
def test_every_number_of_the_summary_is_in_the_run_folders(finished):
    content = json.loads(summary(finished))
    assert (content["runs_done"], content["runs_missing"]) == (7, [])
    assert [cell["cell"] for cell in content["cells"]] == ["plain", "kd, alpha 0.1", "kd, alpha 0.9"]
    for cell in content["cells"]:
        loaded = [json.loads((finished / "studies" / "tiny" / run / "result.json").read_text()) for run in cell["runs"]]
        assert [result["seed"] for result in loaded] == [0, 1]
        for metric in ("accuracy", "nll"):
            values = [result["student"]["test"][metric] for result in loaded]
            assert cell["metrics"][f"student.test.{metric}"]["mean"] == pytest.approx(statistics.mean(values))


@pytest.mark.slow
def test_what_kdlab_measures_is_known(finished):
    for path in (finished / "studies" / "tiny").glob("*/result.json"):
        student = json.loads(path.read_text())["student"]
        assert set(student["test"]) <= set(MEASURED["student.test"])
        assert tuple(student["val"]) == MEASURED["student.val"]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("student.test.acuracy", "did you mean student.test.accuracy"),
        ("student.val.nll", "did you mean student.val.accuracy"),
        ("student.test.first_accuracy", ""),
        ("profile.macs.macs", ""),
        ("student.test.ece", ""),
    ],
)
def test_a_metric_that_nobody_measures_is_told_before_anything_runs(metric, said):
    assert said in doubts_about(metric)
    assert bool(doubts_about(metric)) == bool(said)


def test_what_needs_a_failed_run_is_not_waited_for():
    def run(name, *needs):
        return PlannedRun(name, "student", "v", {}, 0, (), needs)

    plan = Plan("s", "", (), (), (run("t"), run("u"), run("a", "t"), run("b", "a"), run("c", "u"), run("d")))
    states = ["failed", "running", "pending", "pending", "pending", "done"]
    assert _open(plan, states) == {"u", "c"}


@pytest.mark.slow
def test_students_learn_from_the_teacher_of_the_study(finished):
    content = json.loads(summary(finished))
    folder = finished / "studies" / "tiny"
    teacher = folder / content["teachers"][0]["run"] / "student.safetensors"
    for run in content["cells"][2]["runs"]:  # alpha 0.9, which is in no config
        result = json.loads((folder / run / "result.json").read_text())
        assert Path(result["teacher"]["checkpoint"]) == teacher
        config = yaml.safe_load((folder / run / "config.yaml").read_text())
        assert config["model"]["init_args"]["alpha"] == 0.9


@pytest.mark.slow
def test_a_finished_study_runs_nothing(finished, capfd):
    before = results(finished)
    assert main(["study", write(finished), "--runs_dir", str(finished)]) == 0
    assert results(finished) == before  # with the time of training in them
    said = capfd.readouterr()
    assert "this call: 7 runs (7 done)" in said.out
    assert "7 of 7 runs were done already" in said.err


@pytest.mark.slow
def test_a_changed_study_runs_what_is_new(finished, tmp_path, capfd):
    import shutil

    shutil.copytree(finished, tmp_path / "runs")
    runs, before = tmp_path / "runs", results(finished)
    changed = {"kd": {**STUDY["variants"]["kd"], "grid": {"model.alpha": [0.9]}}, "plain": STUDY["variants"]["plain"]}
    assert (
        main(["study", write(tmp_path, seeds=[0, 1, 2], variants=changed), "--runs_dir", str(runs), "--dry-run"]) == 0
    )
    said = capfd.readouterr().out
    assert "this call: 7 runs (5 done, 2 pending)" in said
    assert "2 finished runs in" in said
    assert "time for the rest: about 0:00:0" in said
    assert results(runs) == before  # a dry run runs nothing


FORK = multiprocessing.get_context("fork")


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in Linux' /proc")
def test_a_study_killed_ten_times_gives_the_same_summary(finished, tmp_path):
    path, draw = write(tmp_path), random.Random(0)
    arguments = ["study", path, "--runs_dir", str(tmp_path / "runs")]
    killed = 0
    for _ in range(12):
        driver = FORK.Process(target=main, args=(arguments,))
        driver.start()
        while driver.is_alive() and driver.pid is not None and not children(driver.pid):
            time.sleep(0.01)  # until a run has started
        driver.join(draw.uniform(0.0, 0.8))
        if driver.is_alive() and driver.pid is not None:
            os.kill(driver.pid, signal.SIGSTOP)  # so that it starts no more while we look
            runs = children(driver.pid)
            killed += bool(runs)
            for pid in [*runs, driver.pid]:
                os.kill(pid, signal.SIGKILL)
            driver.join()
    assert killed >= 10
    assert main(arguments) == 0
    assert summary(tmp_path / "runs") == summary(finished)
    assert set(results(tmp_path / "runs")) == set(results(finished))
    folders = {path.name for path in (tmp_path / "runs" / "studies" / "tiny").iterdir() if path.is_dir()}
    assert folders == {*results(finished), "report"}  # no run has begun a second folder


def test_a_config_that_changes_while_a_study_runs_is_noticed(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {init_args: {temperature: 3}}\n")
    kd = {"base": ["digits/logit_matching", str(mine)], "set": {"model.teacher.checkpoint": "@wide"}}
    reader = ConfigReader()
    plan = make_plan(read_study(Path(write(tmp_path, variants={"kd": kd}, comparisons=[]))), reader)
    assert [reader.is_as_planned(run) for run in plan.runs] == [True] * 3
    mine.write_text("model: {init_args: {temperature: 4}}\n")
    assert [reader.is_as_planned(run) for run in plan.runs] == [True, False, False]
    mine.unlink()
    assert not reader.is_as_planned(plan.runs[1])


def test_a_failed_run_is_reported_and_the_others_are_done(tmp_path, capfd):
    variants = {
        "plain": {"base": "digits/independent"},
        "wild": {"base": "digits/independent", "set": {"model.optimizer.lr": 1e30}},
    }
    path = write(tmp_path, variants=variants, teachers={}, seeds=[0], comparisons=[{"against": "plain"}])
    arguments = ["study", path, "--runs_dir", str(tmp_path)]
    assert main(arguments) == 6
    said = capfd.readouterr().err
    assert "wild, seed 0: failed: exit code 5: " in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("kdlab: error: 1 of 2 runs are not done, for example wild, seed 0 (exit code 5: ")
    assert last.endswith("mend it, and try again what failed with --retry-failed")
    content = json.loads(summary(tmp_path))
    assert ([cell["cell"] for cell in content["cells"]], content["runs_missing"]) == (["plain"], [])
    assert [(one["label"], one["reason"][:13]) for one in content["runs_failed"]] == [("wild, seed 0", "exit code 5: ")]
    assert main(arguments) == 6  # still failed, and not run again
    assert "(--retry-failed runs it again)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": {"plain": {"base": "digits/independent", "set": {"model.alfa": 1}}}, "teachers": {}},
            "study tiny, plain: model: IndependentStudent has no alfa; there are: ",
        ),
        (
            {"variants": {"kd": {**STUDY["variants"]["kd"], "grid": {"model.temperature": [2, 0]}}}},
            "study tiny, kd, temperature 0: temperature is 0, but it must be a positive number",
        ),
        (
            {"variants": {"kd": {"base": "digits/logit_matching"}}, "teachers": {}},
            "each run would look for its teacher by the recipe",
        ),
        (
            {"variants": {"plain": {"base": "digits/indipendent"}}, "teachers": {}},
            "there is no config digits/indipendent; did you mean digits/independent or",
        ),
        ({"metric": ["x"]}, "has no key metric"),
        ({"quick": {"seed": [0]}}, "quick has no key seed; there are: seeds"),
        (
            {"set": {"runs_dir": "/tmp/x"}},
            "runs_dir is set by the study, which has a folder for each run; leave it out",
        ),
    ],
)
def test_a_wrong_study_is_refused_before_anything_runs(tmp_path, capsys, changes, message):
    path = write(tmp_path, **{"comparisons": [], **changes})
    assert main(["study", path, "--runs_dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("kdlab: error: ")
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "runs").exists()


def test_missing_data_are_one_line_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(MNIST, "convert", lambda *_: (_ for _ in ()).throw(IntegrityError("MNIST is not there")))
    path = write(tmp_path, variants={"plain": {"base": "mnist/independent"}}, teachers={}, comparisons=[])
    arguments = ["study", path, "--runs_dir", str(tmp_path / "runs"), "--data_dir", str(tmp_path / "none")]
    assert main([*arguments, "--dry-run"]) == 0
    assert main(arguments) == 4
    assert capsys.readouterr().err.strip().splitlines()[-1] == "kdlab: error: MNIST is not there"
    assert not (tmp_path / "runs").exists()


def test_an_overlay_says_how_all_runs_run(tmp_path, capsys):
    path = write(tmp_path, teachers={}, comparisons=[], seeds=[0], variants={"plain": {"base": "digits/independent"}})
    arguments = ["study", path, "--runs_dir", str(tmp_path / "runs"), "--config", "run/fast_cpu"]
    assert main([*arguments, "--jobs", "1"]) == 0
    (result,) = (json.loads(found) for found in results(tmp_path / "runs").values())
    assert result["precision"] == "bf16-mixed"
    (config,) = (tmp_path / "runs" / "studies" / "tiny").glob("*/config.yaml")
    assert "ChannelsLast" in config.read_text()
    capsys.readouterr()
    assert main([*arguments, "--dry-run"]) == 0
    assert "this call: 1 runs (1 done)" in capsys.readouterr().out  # the same runs are found again
    assert main([*arguments[:-2], "--dry-run"]) == 0
    assert "this call: 1 runs (1 pending)" in capsys.readouterr().out  # precision is part of what they are


def test_an_overlay_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["study", write(tmp_path), "--runs_dir", str(tmp_path / "runs"), "--config", "run/fast"]) == 2
    assert "there is no config run/fast" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_study_is_no_config_of_a_run(capsys):
    assert main(["fit", "--config", "studies/digits_alpha"]) == 2
    assert "is a study; run it with: python -m kdlab study studies/digits_alpha" in capsys.readouterr().err


ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "studies"
COMMITTED = ROOT / "benchmarks" / "results" / "studies"
STUDIES = {path.stem for path in CONFIGS.glob("*.yaml")}
RUNS = {  # study -> runs in all, runs of --quick
    "digits_alpha": (66, 11), "alpha_mnist": (61, 13), "grid_mnist": (106, 22), "noise_mnist": (63, 21),
    "alpha_fashion_mnist": (61, 13), "conditions_mnist": (102, 32), "bf16_digits": (21, 9), "bf16_mnist": (21, 9),
    "digits_search": (40, 11), "function_matching_cifar100": (45, 11), "techniques_cifar100": (25, 9),
    "equal_cost_cifar100": (25, 9), "smoke_cifar100": (27, 27),
    **dict.fromkeys(PAIRS := ("published_resnet32x4_resnet8x4", "published_resnet56_resnet20",
                              "published_wrn40_2_wrn16_2", "published_vgg13_vgg8"), (19, 7)),
    "published_cifar100": (330, 11), "published_cifar100_cross": (269, 11),
}  # fmt: skip


def planned(said):
    """The runs that a dry run tells of: those that are planned, and those of the later rounds of searches."""
    return sum(map(int, re.findall(r"(?<=: )\d+(?= runs, \d+ cells)|(?<=at most )\d+(?= of later)", said)))


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_the_runs_of_a_study_are_those_that_the_docs_count(name):
    path = CONFIGS / f"{name}.yaml"
    for quick, expected in enumerate(RUNS[name]):
        study = read_study(path, bool(quick))
        cells = sum(
            math.prod(map(len, v.grid.values())) if v.search is None else v.search.trials for v in study.variants
        )
        assert len(study.teachers) + cells * len(study.seeds) == expected
    lines = (ROOT / "docs" / "studies.md").read_text().splitlines()
    assert any(
        f"`{name}`" in line and re.search(rf"\| {RUNS[name][0]}\b.*\| {RUNS[name][1]}\b", line) for line in lines
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_the_studies_of_the_project_are_whole_when_quick(name, tmp_path, capsys):
    if name == "digits_search":
        pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'kdlab[search]'")
    assert main(["study", f"studies/{name}", "--dry-run", "--runs_dir", str(tmp_path), "--quick"]) == 0
    assert planned(capsys.readouterr().out) == RUNS[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted(COMMITTED.iterdir()), ids=lambda folder: folder.name)
def test_committed_results_are_of_the_study_as_it_is_now(folder):
    if folder.name == "digits_search":
        pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'kdlab[search]'")
    lines = (folder / "results.csv").read_text().splitlines()[1:]
    plan = make_plan(read_study(CONFIGS / f"{folder.name}.yaml"), ConfigReader())
    committed = {line.split(",")[0] for line in lines}
    assert committed >= {run.id for run in plan.runs}  # later rounds of a search follow from results
    assert len(committed) == RUNS[folder.name][0]


def by_size(name):
    """The largest studies have hundreds of cells, each parsed in half a second."""
    return pytest.param(name, marks=pytest.mark.faults if RUNS[name][0] > 200 else pytest.mark.slow)


# the cells of the others are read above, beside their results
@pytest.mark.parametrize(
    "name", [by_size(name) for name in sorted(STUDIES - {path.name for path in COMMITTED.iterdir()})]
)
def test_every_cell_of_a_study_passes_the_parser(name):
    study = read_study(CONFIGS / f"{name}.yaml")
    plan = make_plan(replace(study, seeds=(0,)), ConfigReader())
    assert plan.students


@pytest.mark.parametrize(
    ("name", "pairs", "numbers"), [("published_cifar100", 7, 70), ("published_cifar100_cross", 6, 57)]
)
def test_every_cell_with_published_settings_has_its_published_number(name, pairs, numbers):
    study = read_study(CONFIGS / f"{name}.yaml")
    cells = {(variant.name, pair) for variant in study.variants for pair in variant.grid["pair"]}
    assert cells == {(one.variant, one.values["pair"]) for one in study.published if one.role == "student"}
    assert {teacher.name for teacher in study.teachers} == {
        one.variant for one in study.published if one.role == "teacher"
    }
    assert len(study.published) == len(cells) + len(study.teachers) == numbers
    assert all(len(variant.grid["pair"]) == pairs for variant in study.variants if variant.name.startswith("i"))
    for variant in study.variants:
        for pair in variant.grid["pair"]:
            teacher = variant.settings_at({"pair": pair}).get("model.teacher")
            assert teacher == (None if variant.name == "independent" else f"@{pair.partition('-')[0]}")


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_its_own_has_the_numbers_and_weights_that_it_has_among_all(name):
    whole, one = (read_study(CONFIGS / f"{each}.yaml") for each in ("published_cifar100", name))
    pair = {"resnet32x4_resnet8x4": "resnet32x4-resnet8x4", "wrn40_2_wrn16_2": "wrn40_2-wrn16_2"}.get(
        key := name.removeprefix("published_"), key.replace("_", "-")
    )
    teacher = one.teachers[0].name
    among_all = {
        published.variant: (published.accuracy, published.source, published.epoch)
        for published in whole.published
        if published.values == {"pair": pair} or published.variant == teacher
    }
    assert len(one.published) == 7
    for published in one.published:
        assert (published.accuracy, published.source, published.epoch) == among_all[published.variant]
    variants = {variant.name: variant for variant in whole.variants}
    for variant in one.variants:
        expected = variants[variant.name].settings_at({"pair": pair})
        assert {key: value for key, value in variant.settings.items() if key != "model.teacher"} == {
            key: value for key, value in expected.items() if key != "model.teacher"
        }
        assert f"@{teacher}" in str(variant.settings.get("model.teacher")) or variant.name == "independent"


def test_the_smoke_study_has_every_config_of_cifar100():
    study = read_study(CONFIGS / "smoke_cifar100.yaml")
    bases = {part.base[0] for part in (*study.variants, *study.teachers)}
    assert bases == {f"cifar100/{path.stem}" for path in (CONFIGS.parent / "cifar100").glob("*.yaml")}


@pytest.mark.parametrize(
    ("variant", "key", "expected"),
    [  # configs of mdistiller@a08d46f; names of the logs of logit-standardization-KD@f6e5aa5
        ("decoupled_kd", "model.logit_loss.loss.beta", {"wrn40_2-wrn16_2": 6, "wrn40_2-wrn40_1": 6, "resnet56-resnet20": 2,
                                                        "resnet110-resnet32": 2, "vgg13-vgg8": 6}),
        ("logit_standardization", "model.temperature", {"resnet110-resnet20": 4, "vgg13-vgg8": 3}),
        ("logit_standardization", "model.logit_weight", {"resnet110-resnet20": 12}),
    ],
)  # fmt: skip
def test_pairs_have_their_published_weights(variant, key, expected):
    study = read_study(Path(__file__).parents[2] / "configs" / "studies" / "published_cifar100.yaml")
    (found,) = (one for one in study.variants if one.name == variant)
    settings = {pair: found.settings_at({"pair": pair}) for pair in found.grid["pair"]}
    assert {pair: values[key] for pair, values in settings.items() if key in values} == expected


def test_the_shards_are_the_whole():
    teachers = [PlannedRun(f"t{i}", "teacher", f"t{i}", {}, 0, (), (f"t{i - 1}",) if i else ()) for i in range(3)]
    students = [PlannedRun(f"s{i}", "student", "v", {}, i, (), (f"t{i % 2}",)) for i in range(7)]
    plan = Plan("s", "", ("m",), (), (*teachers, *students))
    shards = [choose(plan, part, 3) for part in (1, 2, 3)]
    assert sorted(run.id for runs in shards for run in runs if run.role == "student") == [run.id for run in students]
    assert [run.id for run in shards[1]] == ["t0", "t1", "s1", "s4"]
    assert [run.id for run in choose(plan, 1, 7)] == ["t0", "s0"]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0"])
def test_shards_that_are_none(text):
    with pytest.raises(UsageError, match=rf"{text} is no part of a whole; give 1/4 to 4/4 \(SLURM: --array=1-4\)"):
        main_raises(["f.yaml", "--shard", text])


def main_raises(arguments):
    from kdlab.verbs.study import parser

    parser().parse_args(arguments)


def test_a_shard_is_read():
    assert shard("2/4") == (2, 4)


@pytest.mark.slow
def test_the_last_shard_writes_the_report(finished, tmp_path, capfd):
    import shutil

    runs = tmp_path / "runs"
    shutil.copytree(finished, runs)
    shutil.rmtree(runs / "studies" / "tiny" / "report")
    gone = Plan.read(runs / "studies" / "tiny").students[0].id  # of the first of two shards
    shutil.rmtree(runs / "studies" / "tiny" / gone)
    assert main(["study", write(tmp_path), "--runs_dir", str(runs), "--shard", "2/2"]) == 0
    assert "6 of 7 runs are done; the last shard writes the report" in capfd.readouterr().out
    assert main(["study", write(tmp_path), "--runs_dir", str(runs), "--shard", "1/2"]) == 0
    assert summary(runs) == summary(finished)
