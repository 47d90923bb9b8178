"""The page of the logit-standardization analysis: its tables against the numbers they are made of."""

import numpy as np
import pytest

from kdlab.analysis import Answers, analyze, standardization_page

TEACHER, WRONG, RIGHT = [1.0, 4, 3, 2], [1.0, 2.8, 3, 2], [0.1, 0.4, 0.3, 0.2]  # the toy example of four classes
NAMES = ("class 0", "dog", "bird", "class 3")


def cells(page, start):
    """The cells of the first table row that begins with `start`."""
    row = next(line for line in page.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.fixture
def page():
    """Two images: both students right on the first, the toy example as the second."""
    teacher = np.array([TEACHER, TEACHER])
    index = np.array([7, 1234])
    run = Answers("plain", np.array([TEACHER, WRONG]), np.array([1, 1]), teacher, class_names=NAMES, index=index)
    other = Answers("standardized", np.array([TEACHER, RIGHT]), np.array([1, 1]), index=index)
    return standardization_page({"test": analyze(run, other, ddof=0)})


def test_both_toy_tables_stand_once_with_the_published_numbers(page):
    assert page.count("## Toy examples") == 1
    assert page.count("the teacher answers dog:") == 2  # the toy example, and the case below
    assert cells(page, "A") == ["A", "bird", "no", "0.1749", "0.1347"]
    assert cells(page, "B") == ["B", "dog", "yes", "0.3457", "0.0000"]
    assert "| A | truck | no |" in page
    assert "the teacher answers deer:" in page


def test_the_summary_tells_right_from_wrong(page):
    assert cells(page, "plain | all")[:3] == ["plain", "all", "2"]
    assert float(cells(page, "plain | all")[3]) == pytest.approx(0.1749 / 2, abs=1e-4)
    assert cells(page, "plain | wrong") == ["plain", "wrong", "1", "0.1749", "0.1347", "0.8000"]
    assert cells(page, "plain | right") == ["plain", "right", "1", "0.0000", "0.0000", "1.0000"]
    assert cells(page, "standardized | wrong") == ["standardized", "wrong", "0", "n/a", "n/a", "n/a"]


def test_the_counts_and_one_mended_case_are_told(page):
    assert cells(page, "exactly one student right")[1:] == ["1", "2"]
    assert cells(page, "... the wrong one nearer by plain KL")[1:] == ["1", "1"]
    assert cells(page, "... mended")[1:] == ["1", "1"]
    assert cells(page, "... new")[1:] == ["0", "1"]
    assert "One mended case: sample 1 (image 1234 of the data set's file), label dog, the teacher answers dog:" in page
    assert cells(page, "standardized | dog") == ["standardized", "dog", "yes", "0.3457", "0.0000", "1.0000"]
    assert cells(page, "plain | bird") == ["plain", "bird", "no", "0.1749", "0.1347", "0.8000"]


def test_the_case_is_one_where_the_teacher_is_right_and_plain_kl_errs_most(made):
    run = Answers("a", made.student, made.labels, made.teacher)
    analysis = analyze(run, Answers("b", made.other, made.labels))
    page = standardization_page({"test": analysis})
    mended = [case for case in analysis.comparison.mismatches.cases if case.mended]
    rightly = [case for case in mended if case.teacher_answer == case.label]
    worst = sorted(rightly, key=lambda case: case.kl_right - case.kl_wrong)[-1]
    assert f"One mended case: sample {worst.index}, label class {worst.label}, the teacher answers class" in page


def test_what_is_missing_is_said(made):
    alone = Answers("alone", made.student, made.labels)
    page = standardization_page({"test": analyze(alone), "val": analyze(alone, Answers("b", made.other, made.labels))})
    assert page.count("There is no teacher.") == 2
    assert "## alone, val split: 200 images" in page
    taught = analyze(Answers("taught", made.student, made.labels, made.teacher))
    page = standardization_page({"test": taught})
    assert "There is no second student to compare with: give --against." in page
    assert cells(page, "taught | all")[2] == "200"
    same = analyze(Answers("x", made.student, made.labels, made.teacher), Answers("y", made.student, made.labels))
    assert "No mismatch is mended." in standardization_page({"test": same})
