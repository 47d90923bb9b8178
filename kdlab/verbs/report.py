"""``python -m kdlab report``: a page, tables and figures of studies and runs, from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdlab.errors import UsageError
from kdlab.verbs.arguments import VerbParser


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "report",
        "DIR [DIR ...] [options]",
        "Write a report of studies, of runs that belong to none, or of both. DIR is the folder of a study or run, or\n"
        "one that holds some. A study's report goes into DIR/report: report.html (one page with everything, for any\n"
        "browser, no network), summary.json, results.csv (one line per run; results.parquet too where pyarrow is\n"
        "installed), tables.md and figures as SVG. Runs that differ in nothing but the seed are one line of the\n"
        "tables. Of several DIR there is one page besides, in `report` of the folder that holds them all. `study`\n"
        "does this at its end; here it is for shards, for studies that are not finished, and for runs.",
        ["runs/studies/digits_alpha", "runs/digits", "runs/studies/alpha_mnist runs/mnist/dkd-seed0 --out page --png"],
    )  # fmt: skip
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="folder of a study, of a run, or of some")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the page, instead of `report`")
    parser.add_argument("--png", action="store_true", help="write the figures as PNG too")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Write the reports that the arguments name.

    Raises:
        UsageError: if a folder holds neither a study nor a finished run, or the report cannot be written.
        IntegrityError: if runs of a study cannot stand in one table.
    """
    options = parser().parse_args(arguments)

    from kdlab.messages import set_up_messages
    from kdlab.studies.findings import failed_runs
    from kdlab.studies.report import write_reports

    set_up_messages()
    try:
        page, written = write_reports(options.folders, options.out, options.png)
    except OSError as error:
        raise UsageError(f"the report cannot be written: {error}; choose another folder with --out") from error
    for results in written:
        failed = len(failed_runs(results))
        for number, what in ((len(results.missing) - failed, "are missing"), (failed, "failed")):
            if number:
                print(f"{results.plan.name}: {number} of {len(results.plan.runs)} runs {what}")
    print(f"report in {page.parent}: open {page.name} in a browser")
