"""Reports from made-up run folders: every number checked against a hand-made sum."""

import csv
import json
import logging
import math
import statistics

import pytest
from scipy import stats

from kdlab.errors import IntegrityError, UsageError
from kdlab.studies.file import Comparison
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.report import write_report
from kdlab.verbs import run_verb

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


def write_result(folder, run_id, accuracy, seed, **protocol):
    (folder / run_id).mkdir(parents=True)
    result = {
        "seed": seed,
        "protocol": PROTOCOL | protocol,
        "student": {"test": {"accuracy": accuracy, "nll": 1 - accuracy}},
        "train_seconds": 1.5,
        "environment": {"git_commit": "abc", "versions": {"torch": "2.15.0"}, "device": "a CPU"},
    }
    (folder / run_id / "result.json").write_text(json.dumps(result))
    (folder / run_id / "metrics.csv").write_text(f"epoch,step,val/accuracy\n0,10,0.5\n1,20,{accuracy}\n")


@pytest.fixture
def folder(tmp_path):
    """A study of a teacher, an independent student, and students of two alphas and two temperatures; all are done."""
    runs = [PlannedRun("teacher0", "teacher", "wide", {}, 0, (), ())]
    write_result(tmp_path, "teacher0", 0.99, 0)
    for seed, accuracy in PLAIN.items():
        runs.append(PlannedRun(f"plain{seed}", "student", "plain", {}, seed, (), ()))
        write_result(tmp_path, f"plain{seed}", accuracy, seed)
    for alpha in (0.1, 0.9):
        for temperature in (1, 4):
            for seed, accuracy in (BETTER if alpha == 0.1 else EQUAL).items():
                name = f"kd{alpha}-{temperature}-{seed}"
                values = {"model.alpha": alpha, "model.temperature": temperature}
                runs.append(PlannedRun(name, "student", "kd", values, seed, (), ("teacher0",)))
                write_result(tmp_path, name, accuracy, seed)
    comparison = Comparison({"variant": "kd", "model.temperature": 1}, {"variant": "plain"})
    Plan("s", "Which alpha?", (METRIC, "student.test.nll"), (comparison,), tuple(runs)).write(tmp_path)
    return tmp_path


def summary(folder):
    return json.loads((folder / "report" / "summary.json").read_text())


def test_cells_have_mean_spread_and_interval(folder):
    write_report(folder)
    cells = {cell["cell"]: cell for cell in summary(folder)["cells"]}
    assert len(cells) == 5
    plain = cells["plain"]["metrics"][METRIC]
    assert plain["n"] == 3
    assert plain["mean"] == pytest.approx(0.91)
    assert plain["sd"] == pytest.approx(0.01)
    assert plain["half_width"] == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert cells["plain"]["runs"] == ["plain0", "plain1", "plain2"]
    assert cells["kd, alpha 0.1, temperature 4"]["model.alpha"] == 0.1


def test_comparisons_are_paired_and_corrected(folder):
    write_report(folder)
    tests = {(test["metric"], test["cell"]): test for test in summary(folder)["comparisons"]}
    assert len(tests) == 4
    better, equal = (tests[METRIC, f"kd, alpha {alpha}, temperature 1"] for alpha in (0.1, 0.9))
    differences = [BETTER[seed] - PLAIN[seed] for seed in PLAIN]
    p = stats.ttest_rel(list(BETTER.values()), list(PLAIN.values())).pvalue
    assert better["difference"]["mean"] == pytest.approx(statistics.mean(differences))
    assert better["effect_size"] == pytest.approx(statistics.mean(differences) / statistics.stdev(differences))
    assert better["p"] == pytest.approx(p)
    assert better["p_holm"] == pytest.approx(2 * p)  # the smaller of two
    assert better["against"] == "plain"
    assert (better["verdict"], equal["verdict"]) == ("higher", "not distinguishable")
    assert tests["student.test.nll", "kd, alpha 0.1, temperature 1"]["verdict"] == "lower"


def test_the_table_says_protocol_n_and_verdict(folder):
    write_report(folder)
    text = (folder / "report" / "tables.md").read_text()
    assert "Protocol: Digits, last epoch (10% of the training images held out), 360 test images." in text
    assert "| plain | 3 | 91.00 ± 2.48 | 1 |" in text
    # differences 1, -1.5, 1: mean 0.1667, sd 1.4434, half width 4.302653 sd / sqrt(3) = 3.586, d_z 0.1155
    assert "| test accuracy | kd, alpha 0.9, temperature 1 | plain | 3 | 0.17 ± 3.59 points | 0.12 |" in text
    assert "| wide | teacher0 | 99.00 |" in text
    assert "Warning" not in text
    for line in [line for line in text.splitlines() if line.startswith("![")]:
        assert (folder / "report" / line.split("(")[1].rstrip(")")).is_file()


def test_the_csv_leads_from_every_number_to_its_run(folder):
    write_report(folder)
    rows = list(csv.DictReader((folder / "report" / "results.csv").open()))
    assert len(rows) == 1 + 3 + 12
    for row in rows:
        result = json.loads((folder / row["run"] / "result.json").read_text())
        assert float(row[METRIC]) == result["student"]["test"]["accuracy"]
        assert (int(row["seed"]), row["git_commit"], row["torch"]) == (result["seed"], "abc", "2.15.0")
    assert {(row["model.alpha"], row["model.temperature"]) for row in rows if row["variant"] == "kd"} == {
        ("0.1", "1"), ("0.1", "4"), ("0.9", "1"), ("0.9", "4"),
    }  # fmt: skip


def test_figures_of_every_key_heat_map_and_curves(folder):
    write_report(folder)
    drawn = {path.stem for path in (folder / "report").glob("*.svg")}
    assert drawn == {"kd_alpha", "kd_temperature", "kd_alpha_temperature", "kd_curves", "plain_curves"}
    for path in (folder / "report").glob("*.svg"):
        assert path.read_text().startswith("<?xml")


def test_the_figures_show_the_numbers(folder):
    from kdlab.studies.figures import heat_map, metric_against, training_curves
    from kdlab.studies.results import read_results

    results = read_results(folder)
    (axis,) = metric_against(results, "kd", "model.alpha").axes
    line = next(line for line in axis.lines if line.get_label() == "kd, temperature 4")
    assert list(line.get_xdata()) == [0.1, 0.9]
    assert list(line.get_ydata()) == pytest.approx([96.0, 91.1666667])
    assert any(
        line.get_linestyle() == "--" and list(line.get_ydata()) == [pytest.approx(91.0)] * 2 for line in axis.lines
    )
    axis = heat_map(results, "kd", "model.alpha", "model.temperature").axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["91.17", "91.17", "96", "96"]
    curves = training_curves(results, "plain")
    assert curves is not None
    assert list(curves.axes[0].lines[0].get_ydata()) == pytest.approx([50.0, 91.0])


def test_the_same_runs_give_the_same_bytes(folder):
    def everything():
        write_report(folder)
        return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}

    assert everything() == everything()


def test_figures_of_an_earlier_version_go(folder):
    write_report(folder)
    old = folder / "report" / "old.svg"
    old.touch()
    write_report(folder)
    assert not old.exists()


def test_few_seeds_and_missing_runs_are_told(folder, caplog):
    for name in ("plain1", "plain2", "teacher0"):
        (folder / name / "result.json").unlink()
    with caplog.at_level(logging.WARNING):
        results = write_report(folder)
    assert [run.id for run in results.missing] == ["teacher0", "plain1", "plain2"]
    assert "a cell has 1 run(s): below 3 seeds an interval says next to nothing" in caplog.text
    text = (folder / "report" / "tables.md").read_text()
    assert "**Not finished: 3 of 16 runs are missing.**" in text
    assert "**Warning: a cell has n = 1." in text
    assert "| not tested: one seed |" in text
    assert summary(folder)["runs_missing"] == ["teacher0", "plain1", "plain2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0"}, "training data (SHA-256) is ffff"),
        ({"selection": "best validation epoch"}, "selected epoch is last epoch in plain0 (plain, seed 0) and best validation epoch in plain2 (plain, seed 2): one table cannot hold both"),
        ({"n_tested": 100}, "number of test images is 360 in plain0"),
    ],
)  # fmt: skip
def test_runs_of_other_protocols_are_refused(folder, change, message):
    path = folder / "plain2" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"protocol": PROTOCOL | change}))
    with pytest.raises(IntegrityError) as caught:
        write_report(folder)
    assert message in str(caught.value)
    assert not (folder / "report").exists()


def test_an_unknown_metric_is_told(folder):
    plan = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(plan | {"metrics": ["student.test.f1"]}))
    with pytest.raises(
        UsageError,
        match=r"metrics: student.test.f1 is no number in the result of plain, seed 0; there are: student.test.accuracy, student.test.nll",
    ):
        write_report(folder)


def test_a_study_without_finished_runs_has_no_report(folder):
    for path in folder.glob("*/result.json"):
        path.unlink()
    with pytest.raises(UsageError, match="has no finished run yet; run the study first"):
        write_report(folder)


def test_the_verb_writes_the_report(folder, capsys):
    run_verb("report", [str(folder)])
    assert f"report in {folder}/report" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"is no folder of a study"):
        run_verb("report", [str(folder / "plain0")])
