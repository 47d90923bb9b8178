"""The figures of a study show the numbers of its runs, and those that cannot be drawn say why."""

import json

import numpy as np
import pytest
import torch

from kdlab.losses import SoftTargets
from kdlab.studies.answers import answer_figures, confusion_of, teacher_of, wrong_labels
from kdlab.studies.canvas import Drawing, LeftOut, is_logarithmic
from kdlab.studies.costs import COSTS, Point, accuracy_against, pareto_front
from kdlab.studies.curves import training_curves
from kdlab.studies.figures import draw_figures, heat_map, metric_against
from kdlab.studies.landscape import high_temperature_limit, loss_landscape, soft_target_loss
from kdlab.studies.results import read_results
from kdlab.studies.statistics import Summary

LATENCY, MACS, ENERGY = COSTS


def change(folder, run, **more):
    """Put more into the result of a run."""
    path = folder / run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def runs_of(folder):
    return sorted(path.parent.name for path in folder.glob("*/result.json"))


def profile(latency_ms, macs, energy_mj=None):
    run = {"variant": "eager", "batch_size": 1, "latency_ms_p50": latency_ms}
    energy = {"energy_mj_per_image": energy_mj} | ({} if energy_mj else {"reason": "no counter"})
    return {"latency": {"runs": [{**run, "batch_size": 128}, run]}, "macs": {"macs": macs}, "energy": energy}


@pytest.fixture
def profiled(folder):
    """The study with the teacher ten times as costly as all students."""
    for name in runs_of(folder):
        change(folder, name, profile=profile(5.0, 1000) if name == "teacher0" else profile(0.5, 100))
    return folder


# -- grids and curves ----------------------------------------------------------------------------------------------


def test_a_line_runs_through_the_means(folder):
    (axis,) = metric_against(read_results(folder), "kd", "model.alpha").axes
    line = next(line for line in axis.lines if line.get_label() == "kd, temperature 4")
    assert list(line.get_xdata()) == [0.1, 0.9]
    assert list(line.get_ydata()) == pytest.approx([96.0, 91.1666667])
    assert any(
        line.get_linestyle() == "--" and list(line.get_ydata()) == [pytest.approx(91.0)] * 2 for line in axis.lines
    )


def test_a_grid_figure_names_the_runs_of_its_dashed_lines_too(folder):
    pictures = draw_figures(read_results(folder))
    assert len(pictures["kd_alpha"].rows) == 12 + 3
    assert {row.run.variant for row in pictures["kd_alpha"].rows} == {"kd", "plain"}
    assert len(pictures["kd_alpha_temperature"].rows) == 12


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([1e-3, 1e-2, 1e-1], True),
        ([1, 2, 4, 10], True),
        ([1, 4, 16], True),
        ([0.1, 0.5, 0.9], False),  # nine times, but evenly as they are
        ([n / 10 for n in range(1, 11)], False),
        ([1, 2, 4, 8], False),  # not more than eight times
        ([0, 1, 10, 100], False),  # 0 has no logarithm
        ([1, 100], False),  # two points look alike on any axis
    ],
)
def test_values_that_are_even_in_their_logarithm(values, logarithmic):
    assert is_logarithmic(values) is logarithmic


def test_a_grid_of_powers_has_a_logarithmic_axis(folder):
    plan = json.loads((folder / "study.json").read_text())
    for run in plan["runs"]:
        if run["variant"] == "kd":
            alpha, temperature = run["values"].values()
            run["values"] = {"optimizer.init_args.lr": {(0.1, 1): 0.001, (0.9, 1): 0.01}.get((alpha, temperature), 0.1)}
    plan["comparisons"] = []
    (folder / "study.json").write_text(json.dumps(plan))
    (axis,) = metric_against(read_results(folder), "kd", "optimizer.init_args.lr").axes
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.001", "0.01", "0.1"]


def test_keys_that_end_alike_have_figures_of_their_own(folder):
    plan = json.loads((folder / "study.json").read_text())
    for run in plan["runs"]:
        if run["variant"] == "kd":
            run["values"] = dict(
                zip(("model.student.width", "model.teacher.width"), run["values"].values(), strict=True)
            )
    plan["comparisons"] = []
    (folder / "study.json").write_text(json.dumps(plan))
    pictures = draw_figures(read_results(folder))
    assert {"kd_student.width", "kd_teacher.width", "kd_student.width_teacher.width"} <= set(pictures)
    labels = {line.get_label() for line in pictures["kd_student.width"].figure.axes[0].lines}
    assert {"kd, teacher.width 1", "kd, teacher.width 4"} <= labels


def test_what_is_left_of_another_grid_is_no_dashed_line(folder):
    plan = json.loads((folder / "study.json").read_text())
    for run in plan["runs"]:
        run["variant"] = "other" if run["id"].startswith("kd0.9-4") else run["variant"]
    (folder / "study.json").write_text(json.dumps(plan))
    figure = metric_against(read_results(folder), "kd", "model.alpha")
    assert [text.get_text() for text in figure.axes[0].texts] == ["plain"]


def test_a_heat_map_has_the_mean_of_each_pair(folder):
    axis = heat_map(read_results(folder), "kd", "model.alpha", "model.temperature").axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["91.17", "91.17", "96", "96"]


def test_training_curves_are_means_over_seeds(folder):
    results = read_results(folder)
    drawn = training_curves(results, results.variants["plain"])
    assert isinstance(drawn, Drawing)
    figure = drawn.figure
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([50.0, 91.0])
    low, high = 91 - 4.302653 / 3**0.5, 91 + 4.302653 / 3**0.5
    ends = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (ends.max(), ends.min()) == (pytest.approx(high, rel=1e-6), 50.0)
    assert low in (pytest.approx(end) for end in ends)


def test_cells_that_cannot_be_told_apart_get_several_figures(tmp_path, write_result):
    from kdlab.studies.loose import read_runs

    for number in range(14):
        write_result(tmp_path / f"run{number:02}", 0.9, 0)
    (results,) = read_runs(sorted(tmp_path.iterdir()))
    pictures = draw_figures(results)
    lines = [len(pictures[name].figure.axes[0].lines) for name in ("curves_1", "curves_2")]
    assert lines == [12, 2]
    assert len({line.get_marker() for line in pictures["curves_1"].figure.axes[0].lines}) == 12


def test_the_title_counts_what_was_averaged(folder, profiled):
    (folder / "plain1" / "metrics.csv").write_text("epoch,step,val/accuracy\n0,10,0.5\n")
    results = read_results(folder)
    drawn = training_curves(results, results.variants["plain"])
    assert isinstance(drawn, Drawing)
    figure = drawn.figure
    assert figure.axes[0].get_title(loc="left").endswith("n = 2")
    assert [row.run.id for row in drawn.rows] == ["plain0", "plain2"]
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([50.0, 90.5])

    for path in folder.glob("*[12]"):  # seeds 1 and 2 of all
        change(folder, path.name, profile=None)
    drawn = accuracy_against(read_results(folder), LATENCY)
    assert drawn.figure.axes[0].get_title(loc="left").endswith("n = 1")


def test_a_teacher_with_more_threads_is_left_out_of_what_the_clock_says(profiled):
    result = json.loads((profiled / "teacher0" / "result.json").read_text())
    change(profiled, "teacher0", environment=result["environment"] | {"threads": 2})
    results = read_results(profiled)
    by_clock, counted = accuracy_against(results, LATENCY), accuracy_against(results, MACS)
    assert isinstance(counted, Drawing)
    assert "teacher0" in {row.run.id for row in counted.rows}
    if isinstance(by_clock, LeftOut):  # the students alone may all cost the same
        assert "cannot be compared" not in by_clock.reason
    else:
        assert "teacher0" not in {row.run.id for row in by_clock.rows}


def test_a_teacher_tested_on_other_images_stands_beside_nobody(profiled):
    result = json.loads((profiled / "teacher0" / "result.json").read_text())
    change(profiled, "teacher0", protocol=result["protocol"] | {"n_tested": 100})
    assert "wide (teacher)" not in read_results(profiled).cells_and_teachers


def test_runs_without_a_curve_are_told(folder):
    for path in folder.glob("*/metrics.csv"):
        path.unlink()
    assert draw_figures(read_results(folder))["curves"] == LeftOut("no run logged its accuracy for two epochs or more")


def test_names_are_no_paths_and_no_formulas(tmp_path, write_result):
    from kdlab.studies.loose import read_runs

    for name in ("a/$x_{$", "a_$x_{$"):
        change_name = {"name": f"../{name}"}
        write_result(tmp_path / name, 0.9, 0, **change_name)
    (results,) = read_runs([tmp_path / "a" / "$x_{$", tmp_path / "a_$x_{$"])
    pictures = draw_figures(results)
    assert all("/" not in name for name in pictures)
    assert len([name for name in pictures if name.endswith("confusion") or name.endswith("confusion-2")]) == 2
    pictures["curves"].figure.savefig(tmp_path / "curves.svg")


def test_long_names_make_files_that_a_disk_takes(tmp_path, write_result):
    from kdlab.studies.loose import read_runs

    for number in range(2):
        write_result(tmp_path / f"{number}", 0.9, 0, name="ü" * 300 + str(number))
    names = list(draw_figures(read_runs([tmp_path / "0", tmp_path / "1"])[0]))
    assert max(len(name.encode()) for name in names) <= 110
    assert len(names) == len(set(names)) > 6


# -- costs ---------------------------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_cheaper_beats():
    def point(label, cost, accuracy):
        return Point(label, label, cost, Summary.of([accuracy]))

    points = [
        point("d", 4, 90),
        point("c", 3, 85),
        point("b", 2, 80),
        point("a", 1, 80),
        point("e", 2, 88),
        point("f", 9, 90),
    ]
    assert [one.label for one in pareto_front(points)] == ["a", "e", "d"]


def test_accuracy_stands_against_measured_costs(profiled):
    drawn = accuracy_against(read_results(profiled), LATENCY)
    (axis,) = drawn.figure.axes
    points = {container.get_label(): container.lines[0] for container in axis.containers}
    assert set(points) == {"plain", "kd", "wide (teacher)"}
    assert points["wide (teacher)"].get_xydata().tolist() == [[5.0, 99.0]]
    assert points["plain"].get_xydata().tolist() == [[0.5, pytest.approx(91.0)]]
    assert "better: kd, alpha 0.1, temperature 1; wide (teacher). Measured on a CPU, 1 thread(s)" in drawn.caption
    assert axis.get_xscale() == "log"
    assert len(drawn.rows) == 16


def test_equal_networks_share_their_latency(profiled):
    for seed, latency in enumerate((0.1, 0.2, 0.3)):  # the same network as all: the mean of 15 runs
        change(profiled, f"plain{seed}", profile=profile(latency, 100))
    drawn = accuracy_against(read_results(profiled), LATENCY)
    students = [container.lines[0].get_xdata() for container in drawn.figure.axes[0].containers][:2]
    assert [x for xs in students for x in xs] == pytest.approx([(0.6 + 12 * 0.5) / 15] * 5)


@pytest.mark.parametrize(
    ("cost", "reason"),
    [(ENERGY, "not measured: no counter"), (MACS, "all students cost the same: 100")],
)
def test_costs_that_tell_nothing_are_left_out(profiled, cost, reason):
    (profiled / "teacher0" / "result.json").unlink()
    assert accuracy_against(read_results(profiled), cost) == LeftOut(reason)


def test_machines_that_differ_are_not_compared(profiled):
    change(profiled, "plain0", environment={"device": "a GPU", "threads": 2})
    results = read_results(profiled)
    left_out = accuracy_against(results, LATENCY)
    assert left_out == LeftOut("measured on machines that cannot be compared: a CPU, 1 thread(s); a GPU, 2 thread(s)")
    assert isinstance(accuracy_against(results, MACS), Drawing)  # the same everywhere


def test_runs_that_were_not_profiled_say_so(folder):
    assert accuracy_against(read_results(folder), MACS) == LeftOut(
        "not profiled; a run measures its student with profile: true"
    )


# -- answers -------------------------------------------------------------------------------------------------------


def test_confusion_of_all_seeds_is_their_sum(profiled):
    results = [{"student": {"confusion_matrix": [[3, 1], [0, 0]]}}, {"student": {"confusion_matrix": [[4, 0], [0, 0]]}}]
    confusion = confusion_of(results)
    assert confusion is not None
    assert confusion.matrix.tolist() == [[7, 1], [0, 0]]
    assert (confusion.n, confusion.support, confusion.accuracy) == (8, (8, 0), (7 / 8, None))
    assert confusion_of([*results, {"student": {}}]) is None


def with_matrices(folder):
    student = {"test": {"accuracy": 0.9, "nll": 0.1}, "confusion_matrix": [[3, 1], [1, 3]], "weights_sha256": "t"}
    for name in runs_of(folder):
        change(folder, name, student=student, teacher={"weights_sha256": "t", "checkpoint": "gone/student.safetensors"})


def test_student_and_teacher_stand_side_by_side(folder):
    with_matrices(folder)
    results = read_results(folder)
    pictures = dict(answer_figures(results))
    assert [axis.get_title() for axis in pictures["kd_confusion"].figure.axes[:2]] == [
        "teacher, n = 8",
        "student, n = 24",
    ]
    for name in ("kd_confusion", "kd_accuracy_by_class"):
        assert [row.run.id for row in pictures[name].rows] == [*(f"kd0.1-1-{seed}" for seed in range(3)), "teacher0"]
    assert isinstance(pictures["kd_accuracy_by_class"], Drawing)
    assert pictures["plain_confusion"] == LeftOut("the run of the teacher was not found")


def test_the_teacher_is_the_one_that_was_learnt_from(folder):
    with_matrices(folder)
    change(folder, "kd0.1-1-0", teacher={"weights_sha256": "another"})
    row = next(row for row in read_results(folder).rows if row.run.id == "kd0.1-1-0")
    assert teacher_of(read_results(folder), row) == "no single run has trained the teacher"


def test_the_teacher_of_a_lone_run_lies_beside_its_weights(tmp_path, write_result):
    from kdlab.studies.loose import read_runs

    write_result(tmp_path / "teacher", 0.99, 0)
    weights = str(tmp_path / "teacher" / "student.safetensors")
    write_result(tmp_path / "kd", 0.9, 0, teacher={"checkpoint": weights})
    (results,) = read_runs([tmp_path / "kd"])
    teacher = teacher_of(results, results.rows[0])
    assert not isinstance(teacher, str)
    assert (teacher.run.role, teacher.run.id, teacher.accuracy) == ("teacher", "teacher", 0.99)
    (results,) = read_runs([tmp_path / "kd", tmp_path / "teacher"])
    found = teacher_of(results, next(row for row in results.rows if row.run.id == "kd"))
    assert found in results.rows


def test_the_first_analysed_run_gives_the_reliability_diagram(folder):
    from kdlab.analysis import Calibration
    from kdlab.analysis.plain import as_plain_data

    logits, labels = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1])
    calibration = Calibration.from_logits(logits, labels)
    content = {"splits": {"test": {"calibration": {"student": as_plain_data(calibration), "teacher": None}}}}
    (folder / "kd0.9-4-1" / "analysis").mkdir()
    (folder / "kd0.9-4-1" / "analysis" / "analysis.json").write_text(json.dumps(content))
    pictures = dict(answer_figures(read_results(folder)))
    drawn = pictures["kd_reliability_student"]
    assert [row.run.id for row in drawn.rows] == ["kd0.9-4-1"]
    content["splits"]["test"]["calibration"]["teacher"] = as_plain_data(calibration)
    (folder / "kd0.9-4-1" / "analysis" / "analysis.json").write_text(json.dumps(content))
    with_matrices(folder)
    both = dict(answer_figures(read_results(folder)))["kd_reliability_teacher"]
    assert [row.run.id for row in both.rows] == ["kd0.9-4-1", "teacher0"]
    assert drawn.figure.axes[0].get_title() == f"student: reliability, ECE {calibration.ece:.3f}, n = 3"
    assert "kd_reliability_teacher" not in pictures
    assert pictures["plain_reliability"] == LeftOut(
        "no run was analysed; python -m kdlab analyze RUN, then report again"
    )


def test_answers_to_wrong_labels_are_means_over_seeds(folder):
    for seed, rate in enumerate((0.5, 0.6)):
        student = json.loads((folder / f"plain{seed}" / "result.json").read_text())["student"]
        change(folder, f"plain{seed}", student=student | {"noise": {"corrected_rate": rate, "memorised_rate": 0.1}})
    rates = {"noise_corrected_rate": 0.7, "noise_memorised_rate": 0.1}
    for run in ("plain2", "teacher0"):  # asked by `analyze`
        change(folder, run, analysis={"train": rates})
    drawn = wrong_labels(read_results(folder))
    assert isinstance(drawn, Drawing)
    corrected, memorised = drawn.figure.axes[0].containers
    assert corrected.lines[0].get_xdata() == pytest.approx([60.0, 70.0])
    assert memorised.lines[0].get_xdata() == pytest.approx([10.0, 10.0])
    assert [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()] == ["plain", "wide (teacher)"]


def test_without_wrong_labels_there_is_no_such_figure(folder):
    assert wrong_labels(read_results(folder)) == LeftOut("no training label is wrong")
    protocol = json.loads((folder / "plain0" / "result.json").read_text())["protocol"]
    change(folder, "plain0", protocol=protocol | {"n_noisy_labels": 5})
    assert wrong_labels(read_results(folder)) == LeftOut("no run was asked about its wrong labels")


# -- the toy -------------------------------------------------------------------------------------------------------


def logit_pairs():
    generator = np.random.default_rng(0)
    return generator.normal(0, 3, (50, 5)), generator.normal(0, 3, (50, 5))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_the_toy_is_the_loss_that_students_learn_from(temperature):
    student, teacher = logit_pairs()
    loss = SoftTargets(temperature)(torch.tensor(student), torch.tensor(teacher))
    assert soft_target_loss(student, teacher, temperature).mean() == pytest.approx(float(loss), rel=1e-5)


def test_at_high_temperature_the_loss_is_half_the_mean_squared_distance_of_centred_logits():
    student, teacher = logit_pairs()
    limit = high_temperature_limit(student, teacher)
    by_hand = [0.5 * np.mean(((t - t.mean()) - (s - s.mean())) ** 2) for s, t in zip(student, teacher, strict=True)]
    assert limit == pytest.approx(by_hand)
    # the next term of the expansion is of order 1 / T: ten times the temperature, a tenth of the distance
    errors = [np.abs(soft_target_loss(student, teacher, t) - limit).max() for t in (1e2, 1e3, 1e4)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.05)


def test_two_classes_tend_to_an_eighth_of_the_squared_gap():
    student, teacher = np.array([[1.0, -1.0]]), np.array([[3.0, -3.0]])  # gaps 2 and 6: (6 - 2)^2 / 8
    assert high_temperature_limit(student, teacher) == pytest.approx([2.0])
    assert soft_target_loss(student, teacher, 1e4) == pytest.approx([2.0], rel=1e-3)


def test_the_landscape_draws_a_line_per_temperature_and_the_limit(folder):
    rows = read_results(folder).rows
    figure = loss_landscape([1.0, 4.0, 10.0], rows).figure
    two, lowest, highest = figure.axes
    lines = {line.get_label(): line for line in two.lines}
    assert {"T = 1", "T = 4", "T = 10", "limit, T to infinity"} <= set(lines)
    gaps = lines["limit, T to infinity"].get_xdata()
    assert lines["limit, T to infinity"].get_ydata() == pytest.approx((gaps - 6) ** 2 / 8)
    assert (lowest.get_title(loc="left"), highest.get_title(loc="left")) == ("3 classes, T = 1", "3 classes, T = 10")


def test_a_study_without_temperatures_has_no_landscape(folder):
    plan = json.loads((folder / "study.json").read_text())
    kept = [run for run in plan["runs"] if run["values"].get("model.temperature") != 4]
    (folder / "study.json").write_text(json.dumps(plan | {"runs": kept}))
    picture = draw_figures(read_results(folder))["loss_landscape"]
    assert picture == LeftOut("a toy that explains temperatures; model.temperature is in no grid")
