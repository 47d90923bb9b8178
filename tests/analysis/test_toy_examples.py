"""The two toy tables against the published figures, and against the formula written out."""

import math
from statistics import fmean, pstdev

import pytest

from kdlab.analysis import FOUR_CLASSES, TEN_CLASSES, toy_table

PUBLISHED = {  # KL of A and B, plain and standardized; answers; seed study 003, section 2.1
    FOUR_CLASSES: (0.1749, 0.3457, 0.1347, 0.0, "bird", "dog"),
    TEN_CLASSES: (0.7192, 1.2317, 0.1923, 0.0, "truck", "deer"),
}


def kl(student, teacher):
    """KL(teacher || student) at T = 1 in plain Python."""
    p = [math.exp(z) / sum(map(math.exp, teacher)) for z in teacher]
    q = [math.exp(z) / sum(map(math.exp, student)) for z in student]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def z_score(logits):
    return [(z - fmean(logits)) / pstdev(logits) for z in logits]


@pytest.mark.parametrize("example", PUBLISHED, ids=lambda example: example.name)
def test_the_table_is_the_published_one_to_its_four_decimals(example):
    a, b = toy_table(example)
    plain_a, plain_b, scaled_a, scaled_b, answer_a, answer_b = PUBLISHED[example]
    assert [round(value, 4) for value in (a.kl, b.kl)] == [plain_a, plain_b]
    assert [round(value, 4) for value in (a.kl_standardized, b.kl_standardized)] == [scaled_a, scaled_b]
    assert (a.student, a.answer, a.correct) == ("A", answer_a, False)
    assert (b.student, b.answer, b.correct) == ("B", answer_b, True)


@pytest.mark.parametrize("example", PUBLISHED, ids=lambda example: example.name)
def test_the_table_is_the_formula_written_out(example):
    for row, student in zip(toy_table(example), (example.student_a, example.student_b), strict=True):
        assert row.logits == student
        assert row.standardized_logits == pytest.approx(z_score(student))
        assert row.kl == pytest.approx(kl(student, example.teacher), rel=1e-12)
        assert row.kl_standardized == pytest.approx(kl(z_score(student), z_score(example.teacher)), abs=1e-12)


def test_the_printed_ends_of_the_ten_class_vectors_are_kept():
    a, b = toy_table(TEN_CLASSES)
    assert (TEN_CLASSES.teacher[0], TEN_CLASSES.teacher[1], TEN_CLASSES.teacher[-1]) == (1.0, 4.0, 4.5)
    assert (a.logits[0], a.logits[1], a.logits[-1]) == (1.1, 4.2, 7.5)
    assert (b.logits[0], b.logits[1], b.logits[-1]) == (0.1, 0.4, 0.45)
    assert [round(row.standardized_logits[i], 2) for row in (a, b) for i in (0, -1)] == [-1.02, 1.91, -1.07, 0.85]


def test_the_sample_standard_deviation_gives_another_table():
    a, b = toy_table(FOUR_CLASSES, ddof=1)
    assert round(a.kl_standardized, 4) == 0.0995  # what the authors' convention makes of student A
    assert b.kl_standardized == pytest.approx(0, abs=1e-12)
