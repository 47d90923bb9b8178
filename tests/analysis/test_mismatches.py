"""Mismatch cases against samples made by hand and a loop over the definition."""

import numpy as np
import pytest
from scipy import special, stats

from kdlab.analysis import FOUR_CLASSES, Mismatches, SampleDivergences
from kdlab.errors import UsageError

TEACHER, WRONG, RIGHT = (np.array(z) for z in (FOUR_CLASSES.teacher, FOUR_CLASSES.student_a, FOUR_CLASSES.student_b))
NAMES = ("first", "second")


def compare(teacher, first, second, labels, **options):
    teacher, first, second = (np.array(z, dtype=float) for z in (teacher, first, second))
    samples = [SampleDivergences.from_logits(z, teacher, np.array(labels), **options) for z in (first, second)]
    return Mismatches.between(*samples, NAMES)


def test_the_toy_example_is_one_mismatch_that_is_mended():
    mismatches = compare([TEACHER], [WRONG], [RIGHT], [1], ddof=0)
    assert (mismatches.n, mismatches.one_right, mismatches.mismatches, mismatches.mended) == (1, 1, 1, 1)
    assert (mismatches.mismatch_rate, mismatches.mended_rate) == (1, 1)
    assert (mismatches.created, mismatches.mismatches_standardized) == (0, 0)
    assert (mismatches.mismatches_teacher_right, mismatches.mended_teacher_right) == (1, 1)
    (case,) = mismatches.cases
    assert (case.index, case.label, case.teacher_answer, case.wrong_answer) == (0, 1, 1, 2)
    assert (case.right_student, case.mended) == ("second", True)
    assert (round(case.kl_wrong, 4), round(case.kl_right, 4)) == (0.1749, 0.3457)
    assert round(case.kl_standardized_wrong, 4) == 0.1347
    assert case.kl_standardized_right == pytest.approx(0, abs=1e-9)  # eps moves it by less
    assert (case.spearman_right, case.spearman_wrong) == (pytest.approx(1), pytest.approx(0.8))
    assert mismatches.undefined == {"cases": "positions in the data set's file are not given"}


def test_a_case_is_found_again_in_the_file():
    measured = [
        SampleDivergences.from_logits(np.array([TEACHER, row]), np.array([TEACHER] * 2), np.array([1, 1]))
        for row in (WRONG, RIGHT)
    ]
    mismatches = Mismatches.between(*measured, NAMES, file_index=np.array([40, 1700]))
    assert [(case.index, case.file_index) for case in mismatches.cases] == [(1, 1700)]
    assert mismatches.undefined == {}


def test_the_order_of_the_students_does_not_matter_but_the_names_follow():
    mismatches = compare([TEACHER], [RIGHT], [WRONG], [1])
    assert (mismatches.mismatches, mismatches.mended) == (1, 1)
    assert mismatches.cases[0].right_student == "first"
    assert mismatches.cases[0].wrong_answer == 2


def test_samples_that_both_or_neither_answer_correctly_are_not_counted():
    mismatches = compare([TEACHER, TEACHER], [RIGHT, WRONG], [TEACHER, WRONG], [1, 0])
    assert (mismatches.n, mismatches.one_right, mismatches.mismatches, mismatches.cases) == (2, 0, 0, ())
    assert (mismatches.mismatch_rate, mismatches.mended_rate) == (None, None)
    assert mismatches.undefined == {
        "mismatch_rate": "there is no sample that exactly one student answers correctly",
        "mended_rate": "there is no mismatch",
    }


def test_a_right_student_that_is_nearer_is_no_mismatch():
    mismatches = compare([TEACHER], [WRONG], [TEACHER], [1])
    assert (mismatches.one_right, mismatches.mismatches, mismatches.mismatch_rate) == (1, 0, 0)
    assert mismatches.undefined == {"mended_rate": "there is no mismatch"}


def test_a_mismatch_where_the_teacher_is_wrong_is_counted_but_held_apart_and_not_mended():
    # the label is bird: "wrong" student B repeats the teacher's error and is nearer in every respect
    mismatches = compare([TEACHER], [WRONG], [TEACHER], [2])
    assert (mismatches.mismatches, mismatches.mended, mismatches.mismatches_standardized) == (1, 0, 1)
    assert (mismatches.mismatches_teacher_right, mismatches.mended_teacher_right) == (0, 0)
    assert not mismatches.cases[0].mended


def test_a_case_that_standardization_creates_is_counted():
    # the wrong student has the teacher's ranking but for the top two; the right one has its answer and not its shape
    teacher, right, wrong = np.array([0.0, 4, 5]), np.array([1.0, 1, 4]), np.array([0.0, 4, 3])
    p, z = special.softmax, stats.zscore
    assert stats.entropy(p(teacher), p(right)) < stats.entropy(p(teacher), p(wrong))
    assert stats.entropy(p(z(teacher)), p(z(wrong))) < stats.entropy(p(z(teacher)), p(z(right)))
    mismatches = compare([teacher], [right], [wrong], [2])
    assert (mismatches.one_right, mismatches.mismatches) == (1, 0)
    assert (mismatches.created, mismatches.mismatches_standardized) == (1, 1)


def test_equal_divergences_are_no_mismatch_and_do_not_mend_one():
    # teacher undecided between two classes: the students are mirror images, equally far from it
    mismatches = compare([[2.0, 2, 0]], [[3.0, 1, 0]], [[1.0, 3, 0]], [0])
    assert (mismatches.one_right, mismatches.mismatches, mismatches.mismatches_standardized) == (1, 0, 0)
    assert mismatches.created == 0
    # plain KL prefers the wrong one, which is smaller; standardized they are mirror images (too large for eps to tell)
    tie = compare([[2.0, 2, -4]], [[2.2e7, 1.8e7, -4e7]], [[1.8e6, 2.2e6, -4e6]], [0])
    assert (tie.mismatches, tie.mended, tie.mismatches_standardized) == (1, 0, 0)


def test_all_counts_are_those_of_a_loop_over_the_definition(made):
    made = type(made)(n=1000)  # enough for each kind of case
    mismatches = compare(made.teacher, made.student, made.other, made.labels)

    def kl(student, teacher):
        return stats.entropy(special.softmax(teacher), special.softmax(student))

    def z(row):
        return stats.zscore(row, ddof=1)

    one_right = wrong_before = wrong_after = mended = created = 0
    wrong_teacher_right = mended_teacher_right = 0
    indices = []
    for i, label in enumerate(made.labels):
        teacher, rows = made.teacher[i], [made.student[i], made.other[i]]
        right = [row for row in rows if row.argmax() == label]
        wrong = [row for row in rows if row.argmax() != label]
        if len(right) != 1:
            continue
        one_right += 1
        before = kl(wrong[0], teacher) < kl(right[0], teacher)
        after = kl(z(wrong[0]), z(teacher)) < kl(z(right[0]), z(teacher))
        wrong_before += before
        wrong_after += after
        mended += before and not after
        created += after and not before
        teacher_right = teacher.argmax() == label
        wrong_teacher_right += before and teacher_right
        mended_teacher_right += before and not after and teacher_right
        if before:
            indices.append(i)
    assert mended > mended_teacher_right > 0
    assert created > 0
    assert (mismatches.one_right, mismatches.mismatches, mismatches.mended) == (one_right, wrong_before, mended)
    assert (mismatches.created, mismatches.mismatches_standardized) == (created, wrong_after)
    assert mismatches.mismatches_teacher_right == wrong_teacher_right < wrong_before
    assert mismatches.mended_teacher_right == mended_teacher_right
    assert [case.index for case in mismatches.cases] == indices
    assert sum(case.mended for case in mismatches.cases) == mended
    assert mismatches.mismatch_rate == wrong_before / one_right
    assert mismatches.mended_rate == mended / wrong_before
    assert mismatches.mismatches_standardized == mismatches.mismatches - mismatches.mended + mismatches.created


def test_a_student_against_itself_has_no_mismatch(made):
    assert compare(made.teacher, made.student, made.student, made.labels).one_right == 0


def test_a_constant_row_in_a_case_has_no_rank_correlation_and_says_so():
    # the flat student answers class 0, rightly; the confident wrong student is nearer to the confident wrong teacher
    mismatches = compare([[0.0, 5, 0]], [[0.0, 0, 0]], [[0.0, 5, 1]], [0])
    (case,) = mismatches.cases
    assert (case.right_student, case.spearman_right) == ("first", None)
    assert case.spearman_wrong is not None
    assert mismatches.undefined["cases"].endswith("; a row of equal logits has no rank correlation")


def test_a_split_without_samples_has_no_cases_and_says_why(nothing):
    logits, labels = nothing
    mismatches = compare(logits, logits, logits, labels)
    assert (mismatches.n, mismatches.one_right, mismatches.mismatches) == (0, 0, 0)
    assert set(mismatches.undefined.values()) == {"the split has no samples"}


def test_students_that_were_not_measured_alike_are_errors(made):
    def measure(teacher=made.teacher, labels=made.labels, **options):
        return SampleDivergences.from_logits(made.student, teacher, labels, **options)

    for other, message in (
        (
            measure(ddof=0),
            "first and second were measured with T = 1, ddof = 1 and T = 1, ddof = 0; measure both alike",
        ),
        (measure(temperature=2), "T = 1, ddof = 1 and T = 2, ddof = 1"),
        (
            measure(labels=(made.labels + 1) % 7),
            "answered 200 and 200 samples with different labels; give the same split",
        ),
        (measure(teacher=-made.teacher), "first and second are compared with different teachers"),
    ):
        with pytest.raises(UsageError, match=message):
            Mismatches.between(measure(), other, NAMES)
