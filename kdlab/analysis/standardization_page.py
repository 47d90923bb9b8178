"""The logit-standardization analysis as a page to read: toy tables, summary, counts and one mended case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kdlab.analysis.logit_standardization import SampleMeans, StandardizationSummary
from kdlab.analysis.mismatches import MismatchCase, Mismatches
from kdlab.analysis.report import Analysis
from kdlab.analysis.toy_examples import FOUR_CLASSES, TEN_CLASSES, ToyExample, toy_table

Row = Sequence[object]


def standardization_page(splits: Mapping[str, Analysis]) -> str:
    """Return the page as Markdown.

    Args:
        splits: name of the split -> its analysis, of one run.
    """
    lines = [
        "# Logit standardization",
        "",
        "KL(teacher || student) in nats at T = 1, of plain logits and of logits that were standardized (mean 0,\n"
        "standard deviation 1 in each sample).",
        "",
        "## Toy examples",
        "",
        "Population standard deviation (ddof 0). Student A is wrong, student B right.",
        "",
    ]
    for example in (FOUR_CLASSES, TEN_CLASSES):
        lines += [*_toy(example), ""]
    for split, analysis in splits.items():
        lines += [f"## {analysis.name}, {split} split: {analysis.n:,} images", "", *_split(analysis), ""]
    return "\n".join(lines)


def _toy(example: ToyExample) -> Iterator[str]:
    teacher = example.classes[max(range(len(example.teacher)), key=example.teacher.__getitem__)]
    yield f"{example.name}, the teacher answers {teacher}:"
    yield ""
    rows = [
        (row.student, row.answer, "yes" if row.correct else "no", row.kl, row.kl_standardized)
        for row in toy_table(example)
    ]
    yield from _table(("student", "answer", "correct", "KL", "KL, standardized"), rows)


def _split(analysis: Analysis) -> Iterator[str]:
    comparison = analysis.comparison
    if comparison is not None and comparison.following is not None and comparison.mismatches is not None:
        both = zip(comparison.following, comparison.students, strict=True)
        yield from _summary([one.summary(name) for one, name in both])
        yield f"The teacher is that of {comparison.teacher_of}."
        yield ""
        yield from _mismatches(comparison.mismatches, analysis.class_names)
    elif analysis.following is not None:
        yield from _summary([analysis.following.summary(analysis.name)])
        yield "There is no second student to compare with: give --against."
    else:
        yield "There is no teacher."


def _summary(students: Sequence[StandardizationSummary]) -> Iterator[str]:
    rows: list[Row] = []
    for one in students:
        groups: tuple[tuple[str, StandardizationSummary | SampleMeans], ...]
        groups = ("all", one), ("right", one.right), ("wrong", one.wrong)
        rows += [(one.student, name, part.n, part.kl, part.kl_standardized, part.spearman) for name, part in groups]
    yield from _table(("student", "answers", "n", "KL", "KL, standardized", "Spearman"), rows)
    yield ""
    yield f"Standard deviation with ddof {students[0].ddof}. Spearman: rank correlation with the teacher's logits."
    yield ""


def _mismatches(found: Mismatches, class_names: Sequence[str]) -> Iterator[str]:
    rows: list[Row] = [
        ("exactly one student right", found.one_right, found.n),
        ("... the wrong one nearer by plain KL: mismatches", found.mismatches, found.one_right),
        ("... mended: the right one nearer after standardization", found.mended, found.mismatches),
        ("... new: the wrong one nearer only after standardization", found.created, found.one_right),
        ("wrong one nearer after standardization, in all", found.mismatches_standardized, found.one_right),
        ("mismatches where the teacher is right", found.mismatches_teacher_right, found.mismatches),
        ("... of them mended", found.mended_teacher_right, found.mismatches_teacher_right),
    ]
    yield from _table(("samples", "number", "of"), rows)
    yield ""
    case = _example(found)
    if case is None:
        yield "No mismatch is mended."
        return

    def name(label: int) -> str:
        return class_names[label] if class_names else f"class {label}"

    where = "" if case.file_index is None else f" (image {case.file_index} of the data set's file)"
    yield (
        f"One mended case: sample {case.index}{where}, label {name(case.label)}, the teacher answers "
        f"{name(case.teacher_answer)}:"
    )
    yield ""
    wrong = found.students[1 - found.students.index(case.right_student)]
    sides: list[Row] = [
        (case.right_student, name(case.label), "yes", case.kl_right, case.kl_standardized_right, case.spearman_right),
        (wrong, name(case.wrong_answer), "no", case.kl_wrong, case.kl_standardized_wrong, case.spearman_wrong),
    ]
    yield from _table(("student", "answer", "correct", "KL", "KL, standardized", "Spearman"), sides)


def _example(found: Mismatches) -> MismatchCase | None:
    """The mended case in which plain KL errs most, where the teacher is right if there is such a one."""
    mended = [case for case in found.cases if case.mended]
    return max(
        mended, key=lambda case: (case.teacher_answer == case.label, case.kl_right - case.kl_wrong), default=None
    )


def _table(header: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
