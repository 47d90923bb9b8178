"""Published numbers in a study file, and ours beside them, checked by hand."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest

from kdlab.errors import UsageError
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.published import Published, read_published
from kdlab.studies.report import write_report
from kdlab.studies.reproduction import Reproduction, reproduce
from kdlab.studies.results import read_results

GRIDS = {"plain": {}, "kd": {"pair": ("a", "b")}, "both": {"pair": ("a", "b"), "model.alpha": (0, 1)}}
SOURCE = {"source": "README of X (2020)", "epoch": "last", "runs": 5}


def read(columns=None, **source):
    columns = {"pair": ["a", "b"]} if columns is None else columns
    return read_published({"columns": columns, "sources": [{**SOURCE, **source}]}, GRIDS, ["wide"])


def test_rows_along_the_columns_single_numbers_and_teachers():
    found = read(percent={"plain": 69.06, "kd": [70.66, None]}, teachers_percent={"wide": 72.34})
    assert found == (
        Published("teacher", "wide", {}, 0.7234, "README of X (2020)", "last", 5),
        Published("student", "plain", {}, 0.6906, "README of X (2020)", "last", 5),
        Published("student", "kd", {"pair": "a"}, 0.7066, "README of X (2020)", "last", 5),
    )
    assert read_published(None, GRIDS, []) == ()


@pytest.mark.parametrize(
    ("epoch", "runs", "words"),
    [
        ("last", 5, "last epoch, mean of 5 runs"),
        ("last", 1, "last epoch, one run"),
        ("best on test", None, "best epoch by the test images, number of runs not stated"),
        ("not stated", 3, "epoch not stated, mean of 3 runs"),
    ],
)
def test_the_protocol_in_words(epoch, runs, words):
    (found,) = read(percent={"plain": 69.06}, epoch=epoch, runs=runs)
    assert found.protocol == words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"percent": {"kdd": 70.0}}, "published.sources[0].percent: there is no variant kdd in the study; there are: plain, kd, both"),
        ({"percent": {"kd": [70.0, 71.0]}, "columns": {"pair": ["a", "c"]}}, "percent.kd: there is no pair c in the study; there are: a, b"),
        ({"teachers_percent": {"big": 72.0}}, "teachers_percent: there is no teacher big in the study; there are: wide"),
        ({"percent": {"kd": [70.0]}}, "percent.kd has 1 numbers for the columns ['a', 'b']; give one for each, null where none is"),
        ({"percent": {"kd": 70.0}}, "percent.kd is 70.0, but the variant has a grid; give published.columns and a list"),
        ({"percent": {"plain": [70.0, 71.0]}}, "is a list along the columns ['pair'], but the grid of the variant is []"),
        ({"percent": {"both": [70.0, 71.0]}}, "but the grid of the variant is ['pair', 'model.alpha']; both must be one"),
        ({"percent": {"kd": [70.0, 71.0]}, "columns": {}}, "percent.kd is a list along the columns []"),
        ({"percent": {"plain": 0.7066}}, "percent.plain has the value 0.7066, but expected is a test accuracy in per cent"),
        ({"percent": {"plain": 706.6}}, "has the value 706.6, but expected is a test accuracy in per cent"),
        ({"percent": {"plain": "70.66±.3"}}, "has the value 70.66±.3, but expected is a test accuracy in per cent"),
        ({"source": None}, "published.sources[0] has no source; say where its numbers were copied from"),
        ({"epoch": "best"}, "published.sources[0].epoch is best, but it is the epoch that the source reports: last, best on test, not"),
        ({"epoch": None}, "published.sources[0].epoch is None, but it is the epoch"),
        ({"runs": True}, "published.sources[0].runs is True"),
        ({"runs": 0}, "published.sources[0].runs is 0, but it is a number of runs; leave it out"),
        ({"protocol": "last"}, "published.sources[0] has no key protocol; there are: source, epoch, runs, percent"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(changes, message):
    with pytest.raises(UsageError) as caught:
        read(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ([], r"published is \[\], but expected are keys with values"),
        ({"columns": {}}, "published.sources is None, but expected is a list"),
        ({"sources": [1]}, r"published.sources\[0\] is 1, but expected are keys with values"),
        ({"source": []}, "published has no key source; there are: columns, sources"),
    ],
)
def test_a_section_of_another_shape_is_refused(section, message):
    with pytest.raises(UsageError, match=message):
        read_published(section, GRIDS, [])


# -- beside our runs: seeds with 0.90, 0.92, 0.91 as in conftest.py, so mean 0.91 and half width 0.024841 -----------------

HALF_WIDTH = 4.302653 * 0.01 / math.sqrt(3)  # t(0.975, 2) of tables


def published(accuracy, variant="plain", values=None, epoch="last", role="student"):
    return Published(role, variant, values or {}, accuracy, "README of X", epoch, 5)


def with_published(folder, *numbers):
    plan = Plan.read(folder)
    dataclasses.replace(plan, published=numbers).write(folder)
    return plan


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [(0.91, "agrees"), (0.934, "agrees"), (0.886, "agrees"), (0.936, "lower"), (0.884, "higher")],
)
def test_the_verdict_asks_whether_our_interval_holds_the_number(folder, accuracy, verdict):
    with_published(folder, published(accuracy))
    (one,) = reproduce(read_results(folder))
    assert one.verdict == verdict
    assert one.ours is not None
    assert one.difference is not None
    assert one.difference.mean == pytest.approx(0.91 - accuracy)
    assert one.difference.half_width == one.ours.half_width == pytest.approx(HALF_WIDTH, rel=1e-6)
    assert one.note == ""


@pytest.mark.parametrize(
    ("values", "accuracy", "within"),
    [  # by hand: sd 0.01 / sqrt(3) twice is 0.011547; sd 0.001 leaves half a point
        ((0.90, 0.92, 0.91), 0.9215, True), ((0.90, 0.92, 0.91), 0.922, False), ((0.90, 0.92, 0.91), 0.898, False),
        ((0.909, 0.911, 0.910), 0.9149, True), ((0.909, 0.911, 0.910), 0.9151, False), ((0.90, 0.92), 0.91, None),
    ],
)  # fmt: skip
def test_the_band_is_half_a_point_or_two_standard_errors(values, accuracy, within):
    rows = tuple(SimpleNamespace(accuracy=value) for value in values)
    assert Reproduction("plain", published(accuracy), rows, "last epoch").within_band is within


def test_one_run_and_no_run_have_no_verdict(folder):
    for name in ("plain1", "plain2", "kd0.1-1-0", "kd0.1-1-1", "kd0.1-1-2"):
        (folder / name / "result.json").unlink()
    kd = {"model.alpha": 0.1, "model.temperature": 1}
    with_published(folder, published(0.8), published(0.9, "kd", kd), published(0.98, "wide", role="teacher"))
    plain, missing, teacher = reproduce(read_results(folder))
    assert (plain.verdict, missing.verdict, teacher.verdict) == ("one run: no verdict", "no run", "one run: no verdict")
    assert (missing.ours, missing.difference, missing.cell) == (None, None, "kd, alpha 0.1, temperature 1")
    assert teacher.cell == "wide (teacher)"
    assert teacher.difference is not None
    assert teacher.difference.mean == pytest.approx(0.01)
    write_report(folder)
    assert (
        "| kd, alpha 0.1, temperature 1 | 90.00 |  | 0 |  | no run |" in (folder / "report" / "tables.md").read_text()
    )


@pytest.mark.parametrize(
    ("epoch", "selection", "note"),
    [
        ("last", "last epoch", ""),
        ("best on test", "last epoch", "theirs: best epoch by the test images; ours: last epoch"),
        ("not stated", "last epoch", "theirs: epoch not stated; ours: last epoch"),
        ("last", "best validation epoch", "theirs: last epoch; ours: best validation epoch"),
    ],
)
def test_another_choice_of_epoch_is_noted(epoch, selection, note):
    assert Reproduction("plain", published(0.9, epoch=epoch), (), selection).note == note


def test_the_report_shows_both_everywhere(folder):
    kd = {"model.alpha": 0.9, "model.temperature": 4}
    with_published(folder, published(0.9), published(0.95, "kd", kd, "best on test"))
    write_report(folder)
    report = folder / "report"
    first, second = json.loads((report / "summary.json").read_text())["published"]
    assert (first["cell"], first["published"], first["verdict"], first["note"]) == ("plain", 0.9, "agrees", "")
    assert first["protocol"] == "last epoch, mean of 5 runs"
    assert first["difference"]["mean"] == pytest.approx(0.01)
    assert (first["ours"]["n"], first["ours"]["mean"]) == (3, pytest.approx(0.91))
    # 0.91, 0.905, 0.92: mean 0.911667, sd 0.0076376, half width 4.302653 sd / sqrt(3) = 0.018973
    assert second["ours"]["half_width"] == pytest.approx(0.018973, abs=1e-6)
    text = (report / "tables.md").read_text()
    assert "## Against published numbers" in text
    assert ("| plain | 90.00 | 91.00 ± 2.48 | 3 | 1.00 ± 2.48 points | agrees | yes | last epoch, mean of 5 runs "
            "| README of X |") in text  # fmt: skip
    assert ("| kd, alpha 0.9, temperature 4 | 95.00 | 91.17 ± 1.90 | 3 | -3.83 ± 1.90 points | lower (theirs: best "
            "epoch by the test images; ours: last epoch) | no | best epoch by the test images, mean of 5 runs |") in text  # fmt: skip
    page = (report / "report.html").read_text()
    table = page[page.index('id="s1-published"') :].split("</table>")[0]
    rows = table.split("<tr>")[2:]
    assert '<data value="0.9">90.00</data>' in rows[0]
    assert ">91.00</data> ± <data" in rows[0]
    assert rows[0].count('href="#s1-run-plain') == 3
    assert "lower" in rows[1]
    assert "theirs: best epoch by the test images; ours: last epoch" in rows[1]
    assert '<a href="#s1-published">' in page


def test_a_study_without_published_numbers_says_nothing_of_them(folder):
    write_report(folder)
    report = folder / "report"
    assert "published" not in json.loads((report / "summary.json").read_text())
    for name in ("tables.md", "report.html"):
        assert "ublished" not in (report / name).read_text()


def test_a_plan_of_before_has_none(folder):
    content = json.loads((folder / "study.json").read_text())
    del content["published"]
    (folder / "study.json").write_text(json.dumps(content))
    assert Plan.read(folder).published == ()


def test_a_named_axis_is_a_column_and_a_label(tmp_path, write_result):
    runs = []
    for variant in ("plain", "kd"):
        for pair in ("a-b", "c-d"):
            for seed in (0, 1):
                name = f"{variant}-{pair}-{seed}"
                runs.append(PlannedRun(name, "student", variant, {"pair": pair}, seed, (), ()))
                write_result(tmp_path / name, 0.5 + 0.1 * seed, seed)
    numbers = (published(0.55, "kd", {"pair": "c-d"}),)
    Plan("s", "", ("student.test.accuracy",), (), tuple(runs), published=numbers).write(tmp_path)
    write_report(tmp_path)
    lines = (tmp_path / "report" / "results.csv").read_text().splitlines()
    assert lines[0].split(",")[:5] == ["run", "role", "variant", "pair", "seed"]
    assert lines[-1].startswith("kd-c-d-1,student,kd,c-d,1,0.6,")
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert [cell["pair"] for cell in summary["cells"]] == ["a-b", "c-d", "a-b", "c-d"]
    assert (summary["published"][0]["cell"], summary["published"][0]["verdict"]) == ("kd, pair c-d", "agrees")
    page = (tmp_path / "report" / "report.html").read_text()
    assert '<button type="button">pair</button>' in page
    assert "<td>c-d</td>" in page
