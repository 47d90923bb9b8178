"""Reports from made-up run folders: every number checked against a hand-made sum."""

import csv
import json
import logging
import math
import os
import re
import statistics

import pytest
from scipy import stats

from kdlab.errors import IntegrityError, UsageError
from kdlab.studies.formats import mean_and_half_width
from kdlab.studies.report import find_runs, write_report, write_reports
from kdlab.studies.statistics import Summary
from kdlab.verbs import run_verb

METRIC = "student.test.accuracy"
PLAIN = {0: 0.90, 1: 0.92, 2: 0.91}  # as in conftest.py
BETTER = {0: 0.95, 1: 0.975, 2: 0.955}


@pytest.fixture
def figures():
    """For tests that look at figures."""


@pytest.fixture(autouse=True)
def drawn_only_where_looked_at(request, monkeypatch):
    """Drawing takes most of the time of a report."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr("kdlab.studies.report.draw_figures", lambda results: {})


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


def test_cells_with_the_very_same_numbers_are_one_test(folder):
    plan = json.loads((folder / "study.json").read_text())
    plan["comparisons"] = [{"of": {"variant": "kd"}, "against": {"variant": "plain"}}]
    (folder / "study.json").write_text(json.dumps(plan))
    write_report(folder)
    found = [one for one in summary(folder)["comparisons"] if one["metric"] == METRIC]
    assert len(found) == 4  # two temperatures, which change nothing here
    p = stats.ttest_rel(list(BETTER.values()), list(PLAIN.values())).pvalue
    smaller = [one["p_holm"] for one in found if one["cell"].startswith("kd, alpha 0.1")]
    assert smaller == pytest.approx([2 * p, 2 * p])  # of two tests, not of four
    for seed in BETTER:  # equal in one metric by chance: students of their own
        path = folder / f"kd0.1-4-{seed}" / "result.json"
        result = json.loads(path.read_text())
        result["student"]["test"]["nll"] += 0.001
        path.write_text(json.dumps(result))
    write_report(folder)
    found = [one for one in summary(folder)["comparisons"] if one["metric"] == METRIC]
    smaller = [one["p_holm"] for one in found if one["cell"].startswith("kd, alpha 0.1")]
    assert smaller == pytest.approx([3 * p, 3 * p])


def test_the_table_says_protocol_n_and_verdict(folder, figures):
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


def test_precision_recall_and_f1_of_each_class_are_means_over_the_runs(folder):
    for run, f1 in (("plain0", [0.9, 0.7]), ("plain1", [0.7, 0.6])):
        path = folder / run / "result.json"
        result = json.loads(path.read_text())
        result["student"]["per_class"] = {"precision": [1.0, 0.5], "recall": [0.25, 0.75], "f1": f1}
        path.write_text(json.dumps(result))
    write_report(folder)
    lines = list(csv.DictReader((folder / "report" / "per_class.csv").open()))
    assert [(line["cell"], line["class"], line["n"]) for line in lines] == [("plain", "0", "2"), ("plain", "1", "2")]
    assert [float(line["f1"]) for line in lines] == pytest.approx([0.8, 0.65])
    assert [float(line["precision"]) for line in lines] == [1.0, 0.5]


def test_the_csv_says_how_often_a_remembered_teacher_was_asked(folder):
    result = json.loads((folder / "plain1" / "result.json").read_text())
    teacher = {"images_answered": 600, "images_computed": 60}
    (folder / "plain1" / "result.json").write_text(json.dumps(result | {"teacher": teacher}))
    write_report(folder)
    rows = {row["run"]: row for row in csv.DictReader((folder / "report" / "results.csv").open())}
    asked = [
        (rows[run]["teacher_images_answered"], rows[run]["teacher_images_computed"]) for run in ("plain1", "plain2")
    ]
    assert asked == [("600", "60"), ("", "")]


def test_figures_of_every_key_heat_map_and_curves(folder, figures):
    write_report(folder)
    drawn = {path.stem for path in (folder / "report").glob("*.svg")}
    assert drawn == {"kd_alpha", "kd_temperature", "kd_alpha_temperature", "curves", "loss_landscape"}
    for path in (folder / "report").glob("*.svg"):
        assert path.read_text().startswith("<?xml")


def test_the_same_runs_give_the_same_bytes(folder, figures):
    def everything():
        write_report(folder)
        return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}

    assert everything() == everything()


def test_figures_of_an_earlier_version_go(folder, figures):
    write_report(folder, png=True)
    report, mine = folder / "report", folder / "report" / "mine.svg"
    assert (report / "kd_temperature.png").read_bytes().startswith(b"\x89PNG")
    mine.touch()
    plan = json.loads((folder / "study.json").read_text())
    kept = [run for run in plan["runs"] if run["values"].get("model.temperature") != 4]
    (folder / "study.json").write_text(json.dumps(plan | {"runs": kept}))
    write_report(folder)
    names = {path.name for path in report.glob("*.*g")} - {"mine.svg"}  # png, svg
    assert names == {"kd_alpha.svg", "curves.svg"}
    assert mine.exists()  # the folder may hold files that are not ours


def test_few_seeds_and_missing_runs_are_told(folder, caplog):
    for name in ("plain1", "plain2", "teacher0"):
        (folder / name / "result.json").unlink()
    with caplog.at_level(logging.WARNING):
        results = write_report(folder)
    assert [run.id for run in results.missing] == ["teacher0", "plain1", "plain2"]
    assert "a cell has n = 1. Below 3 seeds an interval says next to nothing" in caplog.text
    text = (folder / "report" / "tables.md").read_text()
    assert "**Not finished: 3 of 16 runs are missing.**" in text
    assert "**Warning: a cell has n = 1." in text
    assert "| not tested: one seed |" in text
    assert summary(folder)["runs_missing"] == ["teacher0", "plain1", "plain2"]


def test_pairs_with_few_common_seeds_are_told(folder, write_result, caplog):
    plan = json.loads((folder / "study.json").read_text())
    for run in plan["runs"]:
        if run["variant"] == "plain" and run["seed"] != 1:  # 1, 3, 4 against 0, 1, 2
            run["id"], run["seed"] = f"plain{run['seed'] // 2 + 3}", run["seed"] // 2 + 3
            write_result(folder / run["id"], 0.9, run["seed"])
    (folder / "study.json").write_text(json.dumps(plan))
    with caplog.at_level(logging.WARNING):
        write_report(folder)
    told = (
        "2 of 2 compared pairs have fewer than 3 seeds in common, for example kd, alpha 0.1, temperature 1 against "
        "plain (n = 1)."
    )
    assert told in caplog.text
    for name in ("tables.md", "report.html"):
        text = (folder / "report" / name).read_text()
        assert f"Warning: {told}" in text
        assert "a cell has n" not in text


def test_a_cell_of_which_no_run_is_finished_stays_in_the_tables(folder):
    for path in folder.glob("kd0.1-4-*/result.json"):
        path.unlink()
    write_report(folder)
    assert "| kd, alpha 0.1, temperature 4 | 0 | no run |  | no run |  |" in (folder / "report/tables.md").read_text()
    text = (folder / "report" / "report.html").read_text()
    row = text[text.index('<th scope="row">kd, alpha 0.1, temperature 4</th>') :].split("</tr>")[0]
    assert '<data value="0">0</data>' in row
    assert row.count("no run") == 2
    cells = {cell["cell"]: cell["metrics"][METRIC]["n"] for cell in summary(folder)["cells"]}
    assert set(cells.values()) == {3}
    assert "kd, alpha 0.1, temperature 4" not in cells


def test_failed_runs_are_named_apart_from_those_to_come(folder):
    for name in ("plain1", "plain2"):
        (folder / name / "result.json").unlink()
    content = {"exit_code": 5, "output": ["kdlab: error: the loss is nan | <b>"]}
    (folder / "plain1" / "failed.json").write_text(json.dumps(content))
    (folder / "plain0" / "failed.json").write_text(json.dumps(content))  # and done since
    write_report(folder)
    reason = "exit code 5: the loss is nan | <b>"
    assert summary(folder)["runs_failed"] == [{"run": "plain1", "label": "plain, seed 1", "reason": reason}]
    assert summary(folder)["runs_missing"] == ["plain2"]
    text = (folder / "report" / "tables.md").read_text()
    assert "**Not finished: 1 of 16 runs are missing.**" in text
    assert "**Failed: 1 of 16 runs, named below with their reasons." in text
    assert "## Runs that failed\n\n* plain, seed 1: exit code 5: the loss is nan | \\<b>\n" in text
    page = (folder / "report" / "report.html").read_text()
    assert "1 run failed" in page
    assert "<li>plain, seed 1: exit code 5: the loss is nan | &lt;b&gt;</li>" in page
    assert "1 run is missing" in page
    assert "<li>plain, seed 2</li>" in page


def test_what_intervals_say_nothing_of_is_told_where_the_protocol_stands(folder, tmp_path, write_result):
    split = "All seeds share the split of the data: intervals speak of other seeds, not of other test images."
    teacher = "Where a cell learns from a trained teacher, all its seeds share that one"
    write_report(folder)
    for name in ("tables.md", "report.html"):
        assert split in (folder / "report" / name).read_text()
        assert teacher in (folder / "report" / name).read_text()
    # each seed has its own: a mean of the student's weights
    for name, weights in (("own", "ab"), ("shared", "aa")):
        for seed in (0, 1):
            write_run(
                write_result, tmp_path / name / f"kd-seed{seed}", 0.9, seed, teacher={"weights_sha256": weights[seed]}
            )
        write_reports([tmp_path / name])
        text = (tmp_path / name / "report" / "tables.md").read_text()
        assert split in text
        assert (teacher in text) is (name == "shared")


def test_small_numbers_have_the_decimals_of_their_intervals(folder):
    for seed, nll in enumerate((0.00011, 0.00012, 0.00016)):
        path = folder / f"plain{seed}" / "result.json"
        result = json.loads(path.read_text())
        result["student"]["test"]["nll"] = nll
        path.write_text(json.dumps(result))
    write_report(folder)
    # mean 0.00013, sd 0.0000264575, half width 4.302653 sd / sqrt(3) = 0.0000657
    assert (
        "| plain | 3 | 91.00 ± 2.48 | 1 | 0.000130 ± 0.000066 | 2.65e-05 |"
        in (folder / "report" / "tables.md").read_text()
    )
    page = (folder / "report" / "report.html").read_text()
    assert ">0.000130</data> ± <data" in page
    assert '<data value="0.00011">0.0001100</data>' in page


@pytest.mark.parametrize(
    ("metric", "value", "half_width", "shown"),
    [
        ("student.test.accuracy", 0.912345, 0.000001, ("91.23", "0.00")),  # always hundredths of a percent
        ("student.noise.corrected_rate", 0.5, 0.1, ("50.00", "10.00")),
        ("analysis.train.noise_memorised_rate", 0.5, None, ("50.00", None)),
        ("student.test.nll", 0.3456, 0.0996, ("0.346", "0.100")),
        ("student.test.nll", 0.3456, None, ("0.3456", None)),
        ("student.test.nll", 0.00003456, None, ("0.00003456", None)),
        ("student.test.nll", 0.5, 0.0, ("0.5000", "0.0000")),
        ("student.test.nll", 0.5, 1e-17, ("0.5000000", "0.0000000")),
        ("train_seconds", 1234.56, 78.9, ("1235", "79")),
    ],
)
def test_numbers_have_as_many_decimals_as_say_something(metric, value, half_width, shown):
    assert mean_and_half_width(Summary(3, value, None, half_width), metric) == shown


def test_names_of_many_lines_and_html_do_not_break_the_table(folder):
    plan = json.loads((folder / "study.json").read_text())
    for run in plan["runs"]:
        run["variant"] = run["variant"].replace("plain", "a\n| <b>")
    plan["comparisons"][0]["against"] = {"variant": "a\n| <b>"}
    (folder / "study.json").write_text(json.dumps(plan))
    write_report(folder)
    text = (folder / "report" / "tables.md").read_text()
    assert "| a \\| \\<b> | 3 | 91.00" in text
    assert not any(line.startswith("| \\<b>") for line in text.splitlines())


def test_names_that_are_no_utf8_are_shown_as_their_bytes(tmp_path, write_result, figures):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    name = os.fsdecode(b"\xe9-seed0")
    write_result(folder / name, 0.9, 0, name=name, environment={"command": f"fit {name}"})
    page, (results,) = write_reports([folder])
    assert (results.rows[0].run.id, results.plan.name) == ("\\xe9-seed0", "caf\\xe9: Digits")
    assert 'href="../%E9-seed0/result.json"' in page.read_text(encoding="utf-8")
    for name in ("results.csv", "tables.md"):
        assert "\\xe9" in (page.parent / name).read_text(encoding="utf-8")


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
    path.write_text(json.dumps(result | {"protocol": result["protocol"] | change}))
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


def test_a_metric_that_some_students_lack_is_left_out_there(folder):
    """A student without a teacher has no agreement with one."""
    metric = "student.test.agreement"
    for path in folder.glob("kd*/result.json"):
        result = json.loads(path.read_text())
        result["student"]["test"]["agreement"] = 0.97
        path.write_text(json.dumps(result))
    plan = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(plan | {"metrics": [METRIC, metric]}))
    write_report(folder)
    plain, kd = summary(folder)["cells"][:2]
    assert list(plain["metrics"]) == [METRIC]
    assert kd["metrics"][metric]["mean"] == pytest.approx(0.97)
    text = (folder / "report" / "tables.md").read_text()
    assert re.search(r"^\| plain \| 3 \| 91\.00 ± 2\.48 \| 1 \| n/a \|", text, re.MULTILINE)
    assert '<span class="missing">n/a</span>' in (folder / "report" / "report.html").read_text()
    assert {one["metric"] for one in summary(folder)["comparisons"]} == {METRIC}
    assert "in common" not in text
    (folder / "study.json").write_text(json.dumps(plan | {"metrics": [METRIC, "student.test.f1"]}))
    with pytest.raises(UsageError, match=r"^metrics: student.test.f1 is no number in any result; there are: student"):
        write_report(folder)


def test_a_study_without_finished_runs_has_no_report(folder):
    for path in folder.glob("*/result.json"):
        path.unlink()
    with pytest.raises(UsageError, match="has no finished run yet; run the study first"):
        write_report(folder)


def test_the_verb_writes_the_report(folder, capsys):
    run_verb("report", [str(folder)])
    assert f"report in {folder}/report" in capsys.readouterr().out
    (folder / "plain1" / "result.json").unlink()
    run_verb("report", [str(folder)])
    out = capsys.readouterr().out
    assert "s: 1 of 16 runs are missing" in out
    assert "failed" not in out
    (folder / "plain1" / "failed.json").write_text(json.dumps({"exit_code": 5, "output": ["killed"]}))
    run_verb("report", [str(folder)])
    out = capsys.readouterr().out
    assert "s: 1 of 16 runs failed" in out
    assert "missing" not in out
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds no study and no finished run; give runs/studies/NAME, runs/"):
        run_verb("report", [str(folder / "empty")])


def test_what_cannot_be_written_is_told(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the report cannot be written: .*file.*; choose another folder with --out"):
        run_verb("report", [str(folder), "--out", str(tmp_path / "file" / "page")])
    with pytest.raises(UsageError, match=r"plain0 is the folder of a study or run; name another one with --out"):
        run_verb("report", [str(folder), "--out", str(folder / "plain0")])


def test_a_folder_of_somebody_else_is_left_alone(folder, tmp_path):
    mine = tmp_path / "notes"
    mine.mkdir()
    (mine / "tables.md").write_text("![x](plot.svg)\n")
    (mine / "plot.svg").touch()
    with pytest.raises(UsageError, match=r"notes/tables\.md is there and belongs to no report; name another folder"):
        run_verb("report", [str(folder), "--out", str(mine)])
    assert (mine / "tables.md").read_text() == "![x](plot.svg)\n"
    assert (mine / "plot.svg").exists()


def test_a_page_of_somebody_else_is_no_report_of_ours(folder, tmp_path):
    mine = tmp_path / "paper"
    mine.mkdir()
    for name in ("report.html", "results.csv"):
        (mine / name).write_text("mine")
    with pytest.raises(UsageError, match=r"paper/report\.html is there and belongs to no report; name another folder"):
        run_verb("report", [str(folder), "--out", str(mine)])
    assert {path.read_text() for path in mine.iterdir()} == {"mine"}


def test_a_report_of_one_run_does_not_replace_that_of_its_study(folder):
    run_verb("report", [str(folder)])
    before = (folder / "report" / "results.csv").read_text()
    with pytest.raises(UsageError, match=r"report is the report of the study in .*; name another folder with --out"):
        run_verb("report", [str(folder / "plain0")])
    run_verb("report", [str(folder / "plain0"), "--out", str(folder.parent / "one")])
    assert (folder / "report" / "results.csv").read_text() == before
    assert (folder.parent / "one" / "report.html").exists()


def test_a_folder_that_is_named_twice_counts_once(folder, capsys):
    link = folder.parent / "link"
    link.symlink_to(folder)
    run_verb("report", [str(folder), f"{folder}/", str(link)])
    assert capsys.readouterr().out.count("report in") == 1


def test_a_report_among_runs_is_no_obstacle_to_the_next_one(folder, tmp_path, write_result):
    write_run(write_result, tmp_path / "runs" / "a", 0.9, 0)
    for _ in range(2):
        run_verb("report", [str(tmp_path / "runs"), "--out", str(tmp_path / "runs")])
    assert (tmp_path / "runs" / "report.html").exists()


# -- runs that belong to no study ----------------------------------------------------------------------------------


CONFIG = "model: {{class_path: KD, init_args: {{alpha: {alpha}}}}}\nseed_everything: {seed}\nname: {name}\n"


def write_run(write_result, folder, accuracy, seed, alpha=0.5, **more):
    write_result(folder, accuracy, seed, name=folder.name, **more)
    (folder / "config.yaml").write_text(CONFIG.format(alpha=alpha, seed=seed, name=folder.name))


def test_runs_that_differ_in_their_seed_are_one_cell(tmp_path, write_result):
    for seed, accuracy in PLAIN.items():
        write_run(write_result, tmp_path / "digits" / f"kd-seed{seed}", accuracy, seed)
    write_run(write_result, tmp_path / "digits" / "kd-seed0-2", 0.5, 0, alpha=0.6)
    page, (results,) = write_reports([tmp_path / "digits"])
    assert page == tmp_path / "digits" / "report" / "report.html"
    cells = {cell["cell"]: cell for cell in summary(tmp_path / "digits")["cells"]}
    assert {name: cell["runs"] for name, cell in cells.items()} == {
        "kd": ["kd-seed0", "kd-seed1", "kd-seed2"],
        "kd (2)": ["kd-seed0-2"],  # another alpha under the same name
    }
    assert cells["kd"]["metrics"][METRIC]["mean"] == pytest.approx(0.91)
    assert results.plan.metrics == (METRIC, "student.test.nll")
    studies, runs = find_runs(sorted((tmp_path / "digits").glob("*")))
    assert (studies, [run.name for run in runs]) == ([], ["kd-seed0", "kd-seed0-2", "kd-seed1", "kd-seed2"])
    with pytest.raises(UsageError, match=r"report is a report; give the folders of studies or runs"):
        find_runs([page.parent])


def test_the_same_experiment_twice_counts_once(tmp_path, write_result):
    for name, accuracy in (("kd-seed0", 0.8), ("kd-seed0-2", 0.9)):
        write_run(write_result, tmp_path / name, accuracy, 0)
    (tmp_path / "kd-seed0" / "log.txt").write_text("2026-11-21 09:00:00,0 INFO ends\n")
    write_reports([tmp_path])
    (cell,) = summary(tmp_path)["cells"]
    assert (cell["runs"], cell["metrics"][METRIC]["mean"]) == (["kd-seed0-2"], 0.9)
    said = "kd-seed0 is left out: kd-seed0-2 has the same config and seed, and is newer."
    assert said in (tmp_path / "report" / "tables.md").read_text()


def test_runs_without_a_config_are_never_averaged(tmp_path, write_result):
    for seed in (0, 1):
        write_result(tmp_path / f"run{seed}", 0.9, seed)
    write_reports([tmp_path / "run0", tmp_path / "run1"])
    assert [cell["runs"] for cell in summary(tmp_path)["cells"]] == [["run0"], ["run1"]]


def test_a_damaged_config_is_told(tmp_path, write_result):
    write_result(tmp_path / "run0", 0.9, 0)
    (tmp_path / "run0" / "config.yaml").write_text("a: [")
    with pytest.raises(IntegrityError, match=r"config.yaml cannot be read"):
        write_reports([tmp_path / "run0"])


def test_a_damaged_result_is_told(folder):
    (folder / "plain0" / "result.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"result.json cannot be read; delete the run's folder and run it again"):
        write_report(folder)


def test_runs_of_two_protocols_and_a_study_share_a_page_but_no_table(folder, tmp_path, write_result):
    for number, name in enumerate(("Digits", "MNIST")):
        protocol = {"name": name, "fingerprint": name, "val_fraction": 0, "selection": "last epoch", "n_tested": 10}
        write_run(write_result, tmp_path / "loose" / name, 0.1 * (number + 1), 0, protocol=protocol)
    study = tmp_path / "study"
    study.mkdir()
    for path in [*folder.glob("*[0-9]"), folder / "study.json"]:
        path.rename(study / path.name)
    page, results = write_reports([study, tmp_path / "loose"], tmp_path / "page")
    assert [one.plan.name for one in results] == ["s", "loose: Digits", "loose: MNIST"]
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("summary.json")} == {
        "study/report/summary.json", "page/1/summary.json", "page/2/summary.json",
    }  # fmt: skip
    text = page.read_text()
    assert text.count("<h1 ") == 3
    assert (study / "report" / "report.html").read_text().count("<h1 ") == 1


def test_parquet_holds_what_the_csv_holds(folder):
    parquet = pytest.importorskip("pyarrow.parquet", reason="results.parquet needs pyarrow")
    write_report(folder)
    table = parquet.read_table(folder / "report" / "results.parquet").to_pylist()
    rows = list(csv.DictReader((folder / "report" / "results.csv").open()))
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in table] == rows
    assert table[4]["model.alpha"] == 0.1


def test_without_pyarrow_an_old_parquet_file_goes(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (folder / "report").mkdir()
    (folder / "report" / "results.parquet").touch()
    write_report(folder)
    assert not (folder / "report" / "results.parquet").exists()
