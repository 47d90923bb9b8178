"""`python -m kdlab study` with a search, from file to report; a stand-in takes the place of parser and training."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from kdlab.cli import main
from kdlab.studies import executor, process
from kdlab.studies.plan import Plan

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'kdlab[search]'")

FORK = multiprocessing.get_context("fork")
SEARCH = {
    "trials": 6,
    "rounds_of": 2,
    "ranges": {"model.alpha": {"low": 0.0, "high": 1.0}, "model.temperature": {"low": 1.0, "high": 16.0, "log": True}},
}
STUDY = {
    "name": "tiny",
    "seeds": [3, 1],
    "teachers": {"wide": {"base": "t"}},
    "variants": {
        "plain": {"base": "p"},
        "found": {"base": "k", "set": {"model.teacher.checkpoint": "@wide"}, "search": SEARCH},
    },
    "comparisons": [{"of": "found", "against": "plain"}],
    "quick": {"seeds": [1]},
}
PROTOCOL = {"name": "Digits", "selection": "best validation epoch", "val_fraction": 0.1, "n_tested": 360}


def resolve(arguments):
    """As much of a parser as a plan needs."""
    model = dict(zip(arguments[::2], arguments[1::2], strict=True))
    val_fraction = float(model.pop("--data.val_fraction", 0.1))
    return {"model": model, "data": {"class_path": "Digits", "init_args": {"val_fraction": val_fraction}}}


class Reader:
    """Stands in for `ConfigReader`."""

    def __init__(self, read):
        self.read = read

    def __call__(self, arguments):
        return self.read(arguments)

    def is_as_planned(self, run):
        return True

    def prepare_data(self):
        pass


def pretend(arguments, threads):
    """Stands in for `fit`: the best alpha is 0.3 on the validation images and 1 on the test images."""
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    study = Path(options["--runs_dir"], options["--experiment"])
    with (study / "calls").open("a") as file:
        file.write(options["--name"] + "\n")
    alpha, seed = float(options.get("--model.alpha", 0.5)), int(options["--seed_everything"])
    if (study.parent / "broken").exists() and alpha > float((study.parent / "broken").read_text()):
        return 5
    student = {"test": {"accuracy": alpha}, "val": {"accuracy": 0.9 - (alpha - 0.3) ** 2 + seed / 1000}}
    result = {"student": student, "train_seconds": 1.0, "protocol": PROTOCOL, "seed": seed}
    (study / options["--name"] / "result.json").write_text(json.dumps(result))
    kill_at = study.parent / "kill_at"
    if kill_at.exists() and len(list(study.glob("*/result.json"))) >= int(kill_at.read_text()):
        kill_at.unlink()
        os.kill(os.getppid(), signal.SIGKILL)
    return 0


@pytest.fixture(scope="module", autouse=True)
def _pretended():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_fit", pretend)
        patch.setattr(executor, "LOOK_EVERY_S", 0.02)
        patch.setattr("kdlab.studies.configs.ConfigReader", lambda options: Reader(resolve))
        patch.setattr("kdlab.studies.report.draw_figures", lambda results: {})
        yield


def study(folder, *options, runs="runs", found=None, **changes):
    """Run the study; return the exit code."""
    content = {**STUDY, **changes}
    if found:
        content["variants"] = {"plain": {"base": "p"}, "found": {**STUDY["variants"]["found"], **found}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return main(["study", str(folder / "tiny.yaml"), "--runs_dir", str(folder / runs), *options])


def left(folder, runs="runs"):
    """What a study leaves, apart from the run folders."""
    path = folder / runs / "studies" / "tiny"
    return (path / "study.json").read_text(), (path / "report" / "summary.json").read_text()


def calls(folder, runs="runs"):
    return (folder / runs / "studies" / "tiny" / "calls").read_text().split()


@pytest.fixture(scope="module")
def whole(_pretended, tmp_path_factory):
    """What the study leaves that nobody interrupts; computed one run at a time."""
    folder = tmp_path_factory.mktemp("whole")
    assert study(folder, "--jobs", "1") == 0
    return folder


def trials(folder, runs="runs"):
    return Plan.read(folder / runs / "studies" / "tiny").searches[0].suggested


def test_every_trial_runs_with_all_seeds_and_the_best_by_validation_is_named(whole):
    plan, summary = map(json.loads, left(whole))
    assert len(plan["runs"]) == 1 + 2 + 6 * 2 == len(calls(whole))
    best = min(trials(whole), key=lambda values: abs(values["model.alpha"] - 0.3))
    label = f"found, alpha {best['model.alpha']}, temperature {best['model.temperature']}"
    assert summary["searches"] == [
        {"variant": "found", "maximize": "student.val.accuracy", "trials": 6, "finished": 6, "best": label}
    ]
    assert best != max(trials(whole), key=lambda values: values["model.alpha"])  # which is the best on the test images
    assert [(pair["metric"], pair["cell"]) for pair in summary["comparisons"]] == [("student.test.accuracy", label)]


@pytest.mark.parametrize("jobs", ["2", "5"])
def test_the_plan_does_not_depend_on_the_number_of_jobs(whole, tmp_path, jobs):
    assert study(tmp_path, "--jobs", jobs) == 0
    assert left(tmp_path) == left(whole)


@pytest.mark.parametrize("done", [1, 5, 7, 9, 15])  # in and between rounds of 4 runs, after a teacher and 2 others
def test_a_search_that_is_killed_and_continued_gives_the_same(whole, tmp_path, done):
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "kill_at").write_text(str(done))
    driver = FORK.Process(target=study, args=(tmp_path, "--jobs", "1"))
    driver.start()
    driver.join(60)
    assert driver.exitcode == -signal.SIGKILL
    assert study(tmp_path, "--jobs", "1") == 0
    assert left(tmp_path) == left(whole)
    assert sorted(calls(tmp_path)) == sorted(calls(whole))  # each once


def test_a_finished_search_runs_nothing(whole, capsys):
    before = calls(whole)
    assert study(whole) == 0
    assert calls(whole) == before
    assert "15 of 15 runs were done already" in capsys.readouterr().err


def test_the_same_command_twice_at_once_shares_the_rounds(whole, tmp_path):
    drivers = [FORK.Process(target=study, args=(tmp_path, "--jobs", "2")) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(60)
        assert driver.exitcode == 0
    assert left(tmp_path) == left(whole)
    assert sorted(calls(tmp_path)) == sorted(calls(whole))


def test_more_trials_continue_a_search(whole, tmp_path):
    assert study(tmp_path, found={"search": {**SEARCH, "trials": 3}}) == 0
    before = len(calls(tmp_path))
    assert before == 1 + 2 + 3 * 2
    assert study(tmp_path) == 0
    assert left(tmp_path) == left(whole)
    assert len(calls(tmp_path)) == len(calls(whole))


def test_a_failed_trial_counts_as_failed_and_is_run_again_when_asked(whole, tmp_path, capfd):
    limit = 0.8
    assert sum(values["model.alpha"] > limit for values in trials(whole)[:2]) == 1  # of the first round one fails
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "broken").write_text(str(limit))
    assert study(tmp_path) == 6
    summary = json.loads(left(tmp_path)[1])
    (search,) = summary["searches"]
    assert len(trials(tmp_path)) == search["trials"] == 6
    failed = sum(values["model.alpha"] > limit for values in trials(tmp_path))
    assert search["finished"] == 6 - failed < 6
    text = (tmp_path / "runs" / "studies" / "tiny" / "report" / "tables.md").read_text()
    assert f"out of {6 - failed} trials ({failed} more failed or are not finished)" in text
    again = trials(tmp_path)
    assert study(tmp_path) == 6
    assert trials(tmp_path) == again  # nothing but results decides
    (tmp_path / "runs" / "studies" / "broken").unlink()
    assert study(tmp_path, "--retry-failed") == 0
    assert left(tmp_path) == left(whole)


def test_without_its_teacher_a_search_stops(tmp_path, capfd):
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "runs" / "studies" / "broken").write_text("0.4")  # the teacher, and a plain student, have 0.5
    assert study(tmp_path) == 6
    assert "blocked: it needs wide, seed 0, which is not done" in capfd.readouterr().err
    assert len(trials(tmp_path)) == 2  # of the first round


def test_a_setting_that_is_suggested_again_is_no_second_sample(tmp_path):
    found = {"search": {"trials": 6, "rounds_of": 3, "ranges": {"model.alpha": [0.1, 0.4]}}}
    assert study(tmp_path, found=found) == 0
    assert len(trials(tmp_path)) == 6
    assert len(calls(tmp_path)) == 1 + 2 + 2 * 2
    summary = json.loads(left(tmp_path)[1])
    assert {cell["cell"]: len(cell["runs"]) for cell in summary["cells"]} == {
        "plain": 2, "found, alpha 0.1": 2, "found, alpha 0.4": 2,
    }  # fmt: skip
    assert (summary["searches"][0]["finished"], summary["searches"][0]["best"]) == (6, "found, alpha 0.4")


def test_a_dry_run_shows_the_trials_and_the_first_round(tmp_path, capsys):
    assert study(tmp_path, "--dry-run", "--jobs", "2") == 0
    said = capsys.readouterr().out
    assert "study tiny: 7 runs, 3 cells x 2 seeds, in " in said
    assert said.count("  found, alpha ") == 2
    assert "search found: 2 of 6 trials are planned; maximizes student.val.accuracy" in said
    assert "this call: 7 runs (7 pending), then at most 8 of later rounds, 2 at a time" in said
    assert not (tmp_path / "runs").exists()


def test_quick_is_one_round(tmp_path):
    assert study(tmp_path, "--quick") == 0
    plan = Plan.read(tmp_path / "runs" / "studies" / "tiny-quick")
    assert (len(plan.searches[0].suggested), plan.searches[0].trials, len(plan.runs)) == (2, 2, 1 + 1 + 2)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (["--shard", "1/2"], {}, "--shard cannot divide tiny: each round of a search is planned from all results before it; leave --shard out on every machine"),
        ([], {"set": {"data.val_fraction": 0}}, "study tiny, found: its search maximizes student.val.accuracy, but data.val_fraction is 0, so no images are held out to validate on; set it to 0.1"),
        ([], {"comparisons": [{"of": {"variant": "found", "model.alpha": 0.5}, "against": "plain"}]}, "which is no cell other than plain"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, capsys, options, changes, message):
    assert study(tmp_path, *options, **changes) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("kdlab: error: ")
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "runs").exists()


def test_both_ends_of_each_range_are_parsed_before_anything_runs(tmp_path, capsys, monkeypatch):
    from kdlab.errors import UsageError

    def refuse(arguments):
        science = resolve(arguments)
        if science["model"].get("--model.temperature") == "16.0":
            raise UsageError("temperature is 16")
        return science

    monkeypatch.setattr("kdlab.studies.configs.ConfigReader", lambda options: Reader(refuse))
    assert study(tmp_path) == 2
    assert "study tiny, found, alpha 1.0, temperature 16.0: temperature is 16" in capsys.readouterr().err


def test_a_teacher_that_the_first_round_does_not_choose_is_trained_too(tmp_path):
    teachers = {name: {"base": name} for name in ("a", "b", "c", "d", "e")}
    ranges = {"model.teacher.checkpoint": [f"@{name}" for name in teachers]}
    found = {"set": {}, "search": {"trials": 2, "rounds_of": 2, "ranges": ranges}}
    assert study(tmp_path, found=found, teachers=teachers) == 0
    assert len([run for run in Plan.read(tmp_path / "runs" / "studies" / "tiny").runs if run.role == "teacher"]) == 5


def test_a_signal_stops_the_search(tmp_path, monkeypatch, capfd):
    def stop(arguments, threads):
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(0.2)
        return pretend(arguments, threads)

    monkeypatch.setattr(process, "_fit", stop)
    assert study(tmp_path, "--jobs", "1") == 143
    assert "stopped; the same command continues the study" in capfd.readouterr().out
    assert len(trials(tmp_path)) == 2
