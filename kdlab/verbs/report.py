"""``python -m kdlab report``: tables and figures of studies, from their run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdlab.verbs.arguments import VerbParser


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "report",
        "DIR [DIR ...]",
        "Write tables and figures of a study into DIR/report: summary.json, results.csv (one line per run), tables.md\n"
        "and figures. `study` does this at its end; here it is for shards, and for studies that are not finished.",
        ["runs/studies/digits_alpha"],
    )  # fmt: skip
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="folder of a study")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Write the reports that the arguments name.

    Raises:
        UsageError: if a folder holds no study, or no finished run.
        IntegrityError: if runs of a study cannot stand in one table.
    """
    options = parser().parse_args(arguments)

    from kdlab.studies.report import FOLDER, write_report

    for folder in options.folders:
        results = write_report(folder)
        if results.missing:
            print(f"{len(results.missing)} of {len(results.plan.runs)} runs are missing")
        print(f"report in {folder / FOLDER}")
