"""The figures: what they show, how large they are, and that they need nothing but the results."""

import io

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need matplotlib")

from kdlab.analysis import Answers, Calibration, CKAMatrix, Confusion, SampleDivergences, analyze
from kdlab.analysis import figures as draw


def render(figure):
    """Draw it as PNG and SVG; return the texts it shows."""
    for suffix in ("png", "svg"):
        file = io.BytesIO()
        figure.savefig(file, format=suffix)
        assert file.tell() > 1000
    return [text.get_text() for axis in figure.axes for text in axis.findobj(match=_is_text)]


def _is_text(artist):
    return hasattr(artist, "get_fontsize")


@pytest.fixture
def confusions(made):
    return Confusion.from_logits(made.student, made.labels), Confusion.from_logits(made.teacher, made.labels)


@pytest.fixture
def analysis(made):
    run = Answers("distilled", made.student, made.labels, made.teacher, made.features, made.features)
    return analyze(run, Answers("independent", made.other, made.labels))


def test_every_figure_is_ten_centimetres_wide_has_labelled_axes_and_says_n(analysis):
    figures = draw.draw_all(analysis)
    assert set(figures) == {
        "reliability_student", "reliability_teacher", "confusion", "accuracy_by_class", "kl_by_sample", "cka",
        "mismatches",
    }  # fmt: skip
    for figure in figures.values():
        assert figure.get_size_inches()[0] * 2.54 == pytest.approx(10)
        texts = render(figure)
        assert any("n = 200" in text for text in [*texts, figure.get_suptitle()])
        shared = [axis for axis in figure.axes if axis.get_subplotspec() and axis.get_subplotspec().is_last_row()]
        assert all(axis.get_xlabel() for axis in shared if axis.get_label() != "<colorbar>")
        assert figure.axes[0].get_ylabel()
        # letters below 7 points do not read well in print
        sizes = [text.get_fontsize() for text in figure.findobj(match=_is_text)]
        assert min(sizes) >= 7


def test_without_teacher_and_layers_only_the_students_reliability_is_drawn(made):
    alone = analyze(Answers("alone", made.student, made.labels))
    assert list(draw.draw_all(alone)) == ["reliability_student"]


def test_the_reliability_bars_are_the_accuracies_of_the_bins(made):
    calibration = Calibration.from_logits(made.student, made.labels)
    upper, lower = draw.reliability_diagram(calibration, "student").axes
    heights = [bar.get_height() for bar in upper.patches]
    for height, accuracy in zip(heights, calibration.bins.accuracy, strict=True):
        assert np.isnan(height) if accuracy is None else height == accuracy
    assert [bar.get_height() * 200 for bar in lower.patches] == pytest.approx(list(calibration.bins.count))
    assert f"ECE {calibration.ece:.3f}" in upper.get_title()


def test_the_teachers_matrix_stands_left_and_rows_are_shares(confusions):
    student, teacher = confusions
    left, right = draw.confusion_matrices(student, teacher).axes[:2]
    for axis, confusion, role in ((left, teacher, "teacher"), (right, student, "student")):
        assert axis.get_title() == f"{role}, n = 200"
        shown = axis.images[0].get_array()
        np.testing.assert_allclose(shown, confusion.matrix / confusion.matrix.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(np.diag(shown), confusion.accuracy)
        assert axis.images[0].get_clim() == (0, 1)


def test_class_names_are_shown_where_they_fit_and_indices_where_not(confusions):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog"]
    figure = draw.confusion_matrices(*confusions, class_names=names)
    assert set(names) <= set(render(figure))
    many = Confusion.from_logits(np.random.default_rng(0).standard_normal((300, 100)), np.arange(300) % 100)
    figure = draw.confusion_matrices(many, many, class_names=[f"name {i}" for i in range(100)])
    texts = render(figure)
    assert "90" in texts
    assert not any("name" in text for text in texts)


def test_accuracy_bars_stand_by_class_teacher_first(confusions):
    student, teacher = confusions
    (axis,) = draw.per_class_accuracy(student, teacher).axes
    assert [bar.get_height() for bar in axis.patches] == [*teacher.accuracy, *student.accuracy]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["teacher", "student"]


def test_every_sample_is_in_both_histograms(made):
    teacher = made.teacher.copy()
    teacher[:5] = made.student[:5]  # a divergence of exactly 0 has no logarithm
    samples = SampleDivergences.from_logits(made.student, teacher, made.labels)
    (axis,) = draw.kl_histogram(samples).axes
    counts = [patch.get_data().values for patch in axis.patches]
    assert [count.sum() for count in counts] == [200, 200]
    assert [count[0] for count in counts] == [5, 5]
    assert axis.get_xscale() == "log"
    assert "nats" in axis.get_xlabel()


def test_the_heat_map_writes_values_and_leaves_constant_layers_empty(made):
    cka = CKAMatrix.from_features({"stem": made.features["early"], "dead": np.ones((200, 2))}, made.features)
    figure = draw.cka_heat_map(cka)
    texts = render(figure)
    assert {"1.00", "-", "stem", "dead", "early", "late"} <= set(texts)
    assert figure.axes[0].get_title() == "linear CKA, n = 200"


def test_a_split_without_samples_can_be_drawn(nothing):
    logits, labels = nothing
    features = {"a": np.zeros((0, 3))}
    empty = Answers("empty", logits, labels, logits, features, features)
    for figure in draw.draw_all(analyze(empty, empty)).values():
        assert any("n = 0" in text for text in [*render(figure), figure.get_suptitle()])


def test_right_and_wrong_students_stand_against_each_other_before_and_after(made):
    first, second = (SampleDivergences.from_logits(z, made.teacher, made.labels) for z in (made.student, made.other))
    figure = draw.right_against_wrong(first, second, ("distilled", "independent"))
    assert figure.get_suptitle() == "distilled and independent, n = 200"
    one_right = np.flatnonzero((first.answer == made.labels) != (second.answer == made.labels))
    for axis, name, kl in zip(figure.axes, ("plain", "standardized"), ("kl", "kl_standardized"), strict=True):
        expected = []
        for i in one_right:
            good, bad = (first, second) if first.answer[i] == made.labels[i] else (second, first)
            expected.append((getattr(good, kl)[i], getattr(bad, kl)[i]))
        above, below = (np.asarray(points.get_offsets()) for points in axis.collections)
        shown = sorted(map(tuple, [*above, *below]))
        np.testing.assert_allclose(shown, sorted((max(r, 1e-4), max(w, 1e-4)) for r, w in expected))
        wrong_nearer = sum(wrong < right for right, wrong in expected)
        assert len(below) == wrong_nearer > 0
        assert (below[:, 1] < below[:, 0]).all()
        assert axis.get_title() == f"{name} logits\nmismatches: {wrong_nearer} of {len(one_right)}"
        render(figure)


def test_matplotlib_settings_are_left_as_they_were(analysis):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw.draw_all(analysis)
    assert dict(matplotlib.rcParams) == before
