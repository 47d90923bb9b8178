"""The main figures of an analysis, for the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Report = Mapping[str, Any]


def print_summary(reports: Mapping[str, Report]) -> None:
    """Print one table per split, and below it what cannot be said and why.

    Args:
        reports: split -> what `kdlab.analysis.analyze` returned.
    """
    console = Console()
    console = console if console.is_terminal else Console(width=110)
    for split, report in reports.items():
        table = Table(title=f"{report['name']}: {report['n']:,} {split} images", title_justify="left", title_style="")
        comparison, shown = report["comparison"], rows(report)
        columns = ["student", "teacher", *([] if comparison is None else [comparison["students"][1]])]
        filled = [side for side in range(len(columns)) if any(cells[side] for cells in shown.values())]
        table.add_column("")
        for side in filled:
            table.add_column(columns[side], justify="right", overflow="fold")
        for name, cells in shown.items():
            if any(cells):
                table.add_row(name, *(cells[side] for side in filled))
        if reasons := sorted(set(_reasons(report))):
            table.caption, table.caption_justify, table.caption_style = Text("\n".join(reasons)), "left", ""
        console.print(table)


def rows(report: Report) -> dict[str, tuple[str, ...]]:
    """Return figure -> cells of student, teacher and, if there is one, the second student."""
    comparison = report["comparison"]
    second = None if comparison is None else comparison["calibration"][1]
    calibration = report["calibration"]
    table: dict[str, tuple[str, ...]] = {}
    for name, key, form in (("accuracy %", "accuracy", "%"), ("NLL", "nll", ""), ("Brier", "brier", ""),
                            ("ECE", "ece", ""), ("best temperature", "optimal_temperature", "")):  # fmt: skip
        sides = (calibration["student"], calibration["teacher"], *([second] if comparison is not None else []))
        table[name] = tuple("" if side is None else _cell(side[key], form) for side in sides)
    fidelity = [report["fidelity"], None]
    if comparison is not None:
        fidelity.append((comparison["fidelity"] or [None, None])[1])
    for name, key, form in (
        ("agrees with teacher %", "agreement", "%"),
        ("KL to teacher", "kl", ""),
        ("same wrong answer %", "same_wrong_rate", "%"),
        ("Spearman of logits", "spearman", ""),
    ):
        table[name] = tuple("" if side is None else _cell(side[key], form) for side in fidelity)
    table |= _single(report, len(fidelity))
    return table


def _single(report: Report, width: int) -> dict[str, tuple[str, ...]]:
    """Figures of the pair of networks or of student and teacher alone."""

    def padded(*cells: str) -> tuple[str, ...]:
        return (*cells, *[""] * (width - len(cells)))

    table, comparison, key = {}, report["comparison"], "kl_standardized"
    standardized = report["logit_standardization"]
    if standardized is not None:
        other = [] if comparison is None else [_cell(comparison["logit_standardization"]["summary"][1][key], "")]
        table["KL, standardized"] = (_cell(standardized[key], ""), "", *other)
    if report["cka"] is not None:
        cka = report["cka"]
        where = f"{cka['student_layers'][-1]} ~ {cka['teacher_layers'][-1]}"
        table[f"CKA of {where}"] = padded(_cell(cka["values"][-1][-1], ""))
    noise = report["denoising"]["student"]
    if noise is not None and noise["n_noisy"]:
        sides = [side for side in report["denoising"].values() if side is not None]
        table["noisy labels corrected"] = padded(*(f"{side['corrected']} of {side['n_noisy']}" for side in sides))
        table["noisy labels memorised"] = padded(*(f"{side['memorised']} of {side['n_noisy']}" for side in sides))
    if comparison is not None and comparison["logit_standardization"] is not None:
        cases = comparison["logit_standardization"]["mismatches"]
        table["wrong one nearer by KL"] = padded(f"{cases['mismatches']} of {cases['one_right']}")
        table["... mended, standardized"] = padded(f"{cases['mended']} of {cases['mismatches']}")
        table["... new, standardized"] = padded(str(cases["created"]))
    return table


def _reasons(report: Report) -> Iterator[str]:
    """Why a shown figure is not defined."""
    comparison = report["comparison"]
    sides = {"student": report["calibration"]["student"], "teacher": report["calibration"]["teacher"]}
    sides |= {} if comparison is None else {comparison["students"][1]: comparison["calibration"][1]}
    for who, side in sides.items():
        yield from (f"{name} of {who}: {why}" for name, why in (side or {}).get("undefined", {}).items()
                    if name != "bins")  # fmt: skip
    for section in ("fidelity", "cka"):
        yield from (f"{name}: {why}" for name, why in (report[section] or {}).get("undefined", {}).items())


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "n/a"
    return f"{100 * value:.2f}" if form == "%" else f"{value:.4f}"
