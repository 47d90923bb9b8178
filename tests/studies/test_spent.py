"""Accuracy against what trainings of different lengths spent, by hand."""

import json

import pytest

from kdlab.studies.canvas import Drawing, LeftOut
from kdlab.studies.figures import draw_figures
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.results import read_results
from kdlab.studies.spent import EPOCHS, spending_figures, spent
from kdlab.studies.tidy import tidy


def cost(epochs, per_epoch_macs, runs_per_device=1, energy_j=None):
    return {
        "train_s": 2.0 * epochs, "train_energy_j": energy_j, "runs_per_device": runs_per_device,
        "train_images": 100 * epochs, "images_per_epoch": 100.0, "train_macs_per_epoch": per_epoch_macs,
    }  # fmt: skip


@pytest.fixture
def lengths(tmp_path, write_result):
    """An independent student of 1 and 9 epochs, one with a teacher of 3, two seeds each."""
    runs = []
    for variant, epochs, macs in (("alone", 1, 10.0), ("alone", 9, 10.0), ("taught", 3, 30.0), ("taught", 6, 30.0)):
        for seed in (0, 1):
            name = f"{variant}{epochs}-{seed}"
            runs.append(PlannedRun(name, "student", variant, {EPOCHS: epochs}, seed, (), ()))
            write_result(tmp_path / name, 0.5 + 0.01 * epochs + 0.002 * seed, seed, training_cost=cost(epochs, macs))
    Plan("s", "", ("student.test.accuracy",), (), tuple(runs)).write(tmp_path)
    return tmp_path


def test_each_training_is_a_point_of_its_variant(lengths):
    found = dict(spending_figures(read_results(lengths)))
    assert set(found) == {f"accuracy_against_training_{name}" for name in ("seconds", "joules", "macs")}
    macs = found["accuracy_against_training_macs"]
    assert isinstance(macs, Drawing)
    lines = {line.get_label(): line.get_xydata().tolist() for line in macs.figure.axes[0].lines}
    assert lines["alone"] == [[10.0, pytest.approx(51.1)], [90.0, pytest.approx(59.1)]]
    assert lines["taught"] == [[90.0, pytest.approx(53.1)], [180.0, pytest.approx(56.1)]]
    assert macs.figure.axes[0].get_xscale() == "log"
    assert len(macs.figure.axes[0].collections) == 2  # the intervals
    seconds = found["accuracy_against_training_seconds"]
    assert seconds.figure.axes[0].lines[0].get_xdata().tolist() == [2.0, 18.0]
    assert len(macs.rows) == 8
    assert found["accuracy_against_training_joules"] == LeftOut(
        "joules of training were not measured: a run that is alone on its device knows them (--jobs 1, profile: true)"
    )
    assert "accuracy_against_training_macs" in draw_figures(read_results(lengths))


def test_time_that_other_runs_had_a_part_in_is_not_known(lengths):
    path = lengths / "alone1-0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training_cost": cost(1, 10.0, 6, 5.0)}))
    results = read_results(lengths)
    row = results.rows[0]
    assert [spent(row, name) for name in ("seconds", "joules", "macs")] == [None, 5.0, 10.0]
    seconds = dict(spending_figures(results))["accuracy_against_training_seconds"]
    assert seconds.figure.axes[0].lines[0].get_xdata().tolist() == [18.0]  # the cell without all of its runs is none
    path.write_text(path.read_text().replace('"train_energy_j": 5.0', '"train_energy_j": null, "reason": "no counter"'))
    joules = dict(spending_figures(read_results(lengths)))["accuracy_against_training_joules"]
    assert joules == LeftOut("joules of training were not measured: no counter")
    lines = tidy(results)
    assert (lines[0]["train_energy_j"], lines[0]["train_macs"]) == (5.0, 10.0)


def test_a_study_of_one_length_has_no_such_figure(folder):
    assert not list(spending_figures(read_results(folder)))
    assert spent(read_results(folder).rows[0], "macs") is None
