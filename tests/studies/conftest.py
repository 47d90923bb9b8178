"""A study of made-up run folders, small enough to check by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdlab.studies.plan import Plan, PlannedRun, SearchedVariant
from kdlab.studies.study import Comparison

METRIC = "student.test.accuracy"
PLAIN = {0: 0.90, 1: 0.92, 2: 0.91}
BETTER = {0: 0.95, 1: 0.975, 2: 0.955}
EQUAL = {0: 0.91, 1: 0.905, 2: 0.92}
PROTOCOL = {
    "name": "Digits",
    "fingerprint": "f" * 64,
    "val_fraction": 0.1,
    "split_seed": 0,
    "n_tested": 360,
    "selection": "last epoch",
}


@pytest.fixture(scope="session")
def write_result() -> Callable[..., None]:
    """`write_result(folder, accuracy, seed, **more)`: leave what a finished run leaves."""

    def write(folder: Path, accuracy: float, seed: int, **more: object) -> None:
        folder.mkdir(parents=True)
        result = {
            "seed": seed,
            "protocol": PROTOCOL,
            "student": {"test": {"accuracy": accuracy, "nll": 1 - accuracy}, "network": "Net", "parameters": 10},
            "train_seconds": 1.5,
            "environment": {"git_commit": "abc", "versions": {"torch": "2.15.0"}, "device": "a CPU", "threads": 1},
        } | more
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "metrics.csv").write_text(f"epoch,step,val/accuracy\n0,10,0.5\n1,20,{accuracy}\n")
        (folder / "log.txt").write_text("2026-11-21 10:00:00,123 INFO begins\n2026-11-21 10:01:30,456 INFO ends\nx\n")

    return write


@pytest.fixture
def folder(tmp_path: Path, write_result: Callable[..., None]) -> Path:
    """A study of a teacher, an independent student, and students of two alphas and two temperatures; all are done."""
    runs = [PlannedRun("teacher0", "teacher", "wide", {}, 0, (), ())]
    write_result(tmp_path / "teacher0", 0.99, 0)
    for seed, accuracy in PLAIN.items():
        runs.append(PlannedRun(f"plain{seed}", "student", "plain", {}, seed, (), ()))
        write_result(tmp_path / f"plain{seed}", accuracy, seed)
    for alpha in (0.1, 0.9):
        for temperature in (1, 4):
            for seed, accuracy in (BETTER if alpha == 0.1 else EQUAL).items():
                name = f"kd{alpha}-{temperature}-{seed}"
                values = {"model.alpha": alpha, "model.temperature": temperature}
                runs.append(PlannedRun(name, "student", "kd", values, seed, ("--config", "kd"), ("teacher0",)))
                write_result(tmp_path / name, accuracy, seed)
    comparison = Comparison({"variant": "kd", "model.temperature": 1}, {"variant": "plain"})
    Plan("s", "Which alpha?", (METRIC, "student.test.nll"), (comparison,), tuple(runs)).write(tmp_path)
    return tmp_path


TRIALS = (  # alpha, temperature; accuracy on validation and on test images
    ((0.2, 4.0), (0.93, 0.96)),
    ((0.5, 2.0), (0.95, 0.94)),  # the best by validation
    ((0.8, 8.0), (0.94, 0.97)),  # the best by test
    ((0.9, 1.5), (0.99, 0.99)),  # of which a seed has failed
)


@pytest.fixture
def searched(tmp_path: Path, write_result: Callable[..., None]) -> Path:
    """A study of an independent student and a search of six trials: one the same as another, one failed, one to come."""
    runs = [PlannedRun(f"plain{seed}", "student", "plain", {}, seed, (), ()) for seed in PLAIN]
    scores = {run.id: (0.9, PLAIN[run.seed]) for run in runs}
    values = [{"model.alpha": alpha, "model.temperature": temperature} for (alpha, temperature), _ in TRIALS]
    for number, (_, reached) in enumerate(TRIALS):
        for seed in PLAIN:
            runs.append(PlannedRun(f"t{number}-{seed}", "student", "found", values[number], seed, (), ()))
            scores[runs[-1].id] = (reached[0] + (seed - 1) / 100, reached[1] + (seed - 1) / 50)
    del scores["t3-2"]
    for run in runs:
        if run.id in scores:
            validated, tested = scores[run.id]
            student = {"test": {"accuracy": tested}, "val": {"accuracy": validated}, "network": "Net", "parameters": 10}
            write_result(tmp_path / run.id, tested, run.seed, student=student)
    suggested = (values[0], values[1], values[0], *values[2:])
    search = SearchedVariant("found", "student.val.accuracy", 6, suggested, ("model.temperature",))
    comparison = Comparison({"variant": "found"}, {"variant": "plain"})
    Plan("s", "", (METRIC, "student.val.accuracy"), (comparison,), tuple(runs), (search,)).write(tmp_path)
    return tmp_path
