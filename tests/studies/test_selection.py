"""Which trial a search has selected, and what the report says of it, from made-up run folders (see conftest.py)."""

import json
import statistics

import pytest
from scipy import stats

from kdlab.studies.answers import CHOSEN, answer_figures
from kdlab.studies.canvas import Drawing, LeftOut
from kdlab.studies.figures import draw_figures
from kdlab.studies.plan import Plan
from kdlab.studies.report import write_report
from kdlab.studies.results import read_results
from kdlab.studies.search_figures import search_figures, trials_against
from kdlab.studies.selection import best_cells, select

BEST = "found, alpha 0.5, temperature 2.0"
PLAIN = {0: 0.90, 1: 0.92, 2: 0.91}


def unfinish(folder, *kept):
    """Take away the results of all trials but these."""
    for path in folder.glob("t*/result.json"):
        if path.parent.name not in kept:
            path.unlink()


def test_the_best_by_validation_wins_whatever_the_test_says(searched):
    (selection,) = select(read_results(searched))
    # alpha 0.8 is better on the test images; alpha 0.9 has lost a seed
    assert (selection.best, selection.finished) == (BEST, 4)
    assert best_cells([selection]) == {"found": BEST}


def test_without_a_finished_trial_there_is_no_best(searched):
    unfinish(searched, "t0-0")
    (selection,) = select(read_results(searched))
    assert (selection.best, selection.finished) == (None, 0)
    write_report(searched)
    assert "No trial of found has finished." in (searched / "report" / "tables.md").read_text()
    assert "No trial of found has finished" in (searched / "report" / "report.html").read_text()
    (pair,) = json.loads((searched / "report" / "summary.json").read_text())["comparisons"]
    assert (pair["cell"], pair["verdict"]) == ("found (best trial)", "no common seed")


def test_the_best_trial_stands_in_the_comparison_and_its_score_is_not_compared(searched):
    write_report(searched)
    summary = json.loads((searched / "report" / "summary.json").read_text())
    (pair,) = summary["comparisons"]
    differences = [0.94 + (seed - 1) / 50 - accuracy for seed, accuracy in PLAIN.items()]
    assert (pair["metric"], pair["cell"], pair["against"]) == ("student.test.accuracy", BEST, "plain")
    assert pair["difference"]["mean"] == pytest.approx(statistics.fmean(differences))
    assert pair["p_holm"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)  # one pair: nothing to correct
    assert summary["searches"] == [
        {"variant": "found", "maximize": "student.val.accuracy", "trials": 6, "finished": 4, "best": BEST}
    ]


def test_the_table_names_the_best_and_how_it_was_selected(searched):
    write_report(searched)
    text = (searched / "report" / "tables.md").read_text()
    # test 0.92, 0.94, 0.96: half width 4.302653 * 0.02 / sqrt(3) = 0.0497; validation 0.94, 0.95, 0.96: 0.0248
    assert (
        f"Best of found: **{BEST}**, selected by val accuracy (mean over the seeds, on validation images) out of 4 "
        "trials (1 more failed or are not finished): test accuracy 94.00 ± 4.97 %, val accuracy 95.00 ± 2.48 %."
    ) in text
    assert "No test image took part in a selection" in text
    assert "**The search of found is not finished: 5 of 6 trials are planned so far.**" in text
    assert text.count("| found, alpha ") == 4 + 1  # the trials, and the comparison


def test_what_validation_did_not_decide_is_not_said_to_be_validated(searched):
    content = json.loads((searched / "study.json").read_text())
    content["searches"][0]["maximize"] = "train_seconds"
    content["metrics"] = ["student.test.accuracy", "train_seconds"]
    (searched / "study.json").write_text(json.dumps(content))
    write_report(searched)
    said = "selected by train seconds (mean over the seeds) out of 4 trials"
    assert said in (searched / "report" / "tables.md").read_text()


def test_each_trial_is_a_point_and_the_best_has_a_ring(searched):
    results = read_results(searched)
    (selection,) = select(results)
    cells = list(results.variants["found"].values())
    (axis,) = trials_against(results, selection, cells, "model.temperature").axes
    points = {float(x): y for line in axis.lines for x, y in zip(*line.get_data(), strict=True)}
    assert {x: pytest.approx(y) for x, y in points.items()} == {4.0: 93.0, 2.0: 95.0, 8.0: 94.0, 1.5: 98.5}
    hollow = [
        line.get_xdata()[0] for line in axis.lines if line.get_fillstyle() == "none" and line.get_label() != "best"
    ]
    assert hollow == [1.5]  # of which a seed has failed
    (ring,) = [line for line in axis.lines if line.get_label() == "best"]
    assert list(ring.get_xdata()) == [2.0]
    assert axis.get_xscale() == "log"
    assert trials_against(results, selection, cells, "model.alpha").axes[0].get_xscale() == "linear"


def test_words_are_drawn_as_words(searched):
    content = json.loads((searched / "study.json").read_text())
    names = {0.2: "KL", 0.5: "DKD", 0.8: None, 0.9: "KL"}
    for part in (*content["searches"][0]["suggested"], *(run["values"] for run in content["runs"])):
        if part:
            part["model.alpha"] = names[part["model.alpha"]]
    (searched / "study.json").write_text(json.dumps(content))
    results = read_results(searched)
    (axis,) = trials_against(results, *select(results), list(results.variants["found"].values()), "model.alpha").axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["KL", "DKD", "None"]


def test_figures_of_a_search_take_the_place_of_those_of_a_grid(searched):
    pictures = draw_figures(read_results(searched))
    assert isinstance(pictures["found_alpha"], Drawing)
    assert "no effect of one key alone" in pictures["found_alpha"].caption
    assert "found_alpha_temperature" not in pictures
    assert pictures["loss_landscape"] == LeftOut(
        "a toy that explains temperatures; model.temperature is in no grid"
    )  # five temperatures that chance has drawn explain nothing
    unfinish(searched, "t0-0")
    drawn = dict(search_figures(read_results(searched)))
    assert drawn["found_alpha"] == LeftOut("no two trials with different values have finished")


def test_confusion_is_drawn_of_the_trial_that_was_selected(searched):
    for run in Plan.read(searched).runs:
        path = searched / run.id / "result.json"
        if path.exists():
            result = json.loads(path.read_text())
            result["student"] |= {"confusion_matrix": [[9, 1], [0, 10]], "weights_sha256": "w"}
            path.write_text(
                json.dumps(result | {"teacher": {"checkpoint": str(searched / "plain0" / "w"), "weights_sha256": "w"}})
            )
    pictures = dict(answer_figures(read_results(searched)))
    assert pictures["found_confusion"].title == f"Confusion: {BEST}"
    assert "or what a search selected" in CHOSEN
