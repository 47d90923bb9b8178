"""The report of studies and runs: a page, tables, numbers and figures, made from their run folders alone."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from kdlab.analysis.svg import svg_bytes
from kdlab.atomic import atomic_write, write_text
from kdlab.errors import UsageError
from kdlab.run.study_place import PLAN_FILE
from kdlab.studies.canvas import Drawing, Picture
from kdlab.studies.figures import draw_figures
from kdlab.studies.findings import Findings
from kdlab.studies.loose import common_folder, read_runs
from kdlab.studies.page import Section, write_page
from kdlab.studies.results import Results, read_results
from kdlab.studies.tables import markdown
from kdlab.studies.tidy import by_class, tidy, write_csv, write_parquet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

FOLDER = "report"
PAGE = "report.html"
TABLES = "tables.md"
FILES = (PAGE, TABLES, "summary.json", "results.csv", "results.parquet", "per_class.csv")
MARK = "kdlab report"  # stands in every page


def write_report(folder: Path, png: bool = False) -> Results:
    """Write the report of the study in `folder` into its subfolder ``report``.

    The same runs give the same files, byte by byte.

    Args:
        folder: of the study.
        png: whether figures are written as PNG too.

    Raises:
        UsageError: if the folder holds no study, or none of its runs is done.
        IntegrityError: if its runs cannot stand in one table.
    """
    target = folder / FOLDER
    with _alone(folder):
        results = read_results(folder)
        write_page([_write_parts(results, target, png)], target / PAGE)
    return results


def write_reports(folders: Sequence[Path], out: Path | None = None, png: bool = False) -> tuple[Path, list[Results]]:
    """Write the reports of studies and of runs that belong to none, and one page of all.

    A study's report goes into its own folder; everything else, and the page, into `out`.

    Args:
        folders: of studies, of runs, or of folders that hold some.
        out: folder of the page; by default ``report`` in the study, or in the folder that all of `folders` lie in.
        png: whether figures are written as PNG too.

    Returns:
        the page, and what stands in it.

    Raises:
        UsageError: if a folder holds neither a study nor a finished run, or `out` holds files that are not ours.
        IntegrityError: if runs of a study cannot stand in one table.
    """
    studies, runs = find_runs(folders)
    results = [*map(read_results, studies), *(read_runs(runs) if runs else [])]
    target = out or (studies[0] if len(results) == len(studies) == 1 else common_folder([*studies, *runs])) / FOLDER
    if (target / PLAN_FILE).exists() or (target / "result.json").exists():
        raise UsageError(f"{target} is the folder of a study or run; name another one with --out")
    _check_target(target, studies)
    sections = []
    with ExitStack() as locks:
        for study in sorted(studies):
            locks.enter_context(_alone(study))
        for number, one in enumerate(results):
            if len(results) == 1:
                sections.append(_write_parts(one, target, png))
            elif number < len(studies):
                own = one.folder / FOLDER
                sections.append(_write_parts(one, own, png))
                write_page(sections[-1:], own / PAGE)
            else:  # one set of files for each protocol
                own = target if len(results) == len(studies) + 1 else target / str(number - len(studies) + 1)
                sections.append(_write_parts(one, own, png))
        write_page(sections, target / PAGE)
    return target / PAGE, results


def find_runs(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Sort folders into those of studies and those of runs; of any other one, what lies directly in it is taken.

    Raises:
        UsageError: if a folder holds neither.
    """
    studies: list[Path] = []
    runs: list[Path] = []
    for folder in dict.fromkeys(Path(os.path.normpath(folder)) for folder in folders):
        inside = [folder] if _kind(folder) else sorted(child for child in folder.glob("*") if _kind(child))
        if not inside and (folder / PAGE).is_file():
            continue  # an earlier report, which `runs/digits/*` names too
        if not inside:
            raise UsageError(
                f"{folder} holds no study and no finished run; give runs/studies/NAME, runs/EXPERIMENT/NAME, or a "
                "folder of such"
            )
        for child in inside:
            (studies if _kind(child) == "study" else runs).append(child)
    if not studies and not runs:
        raise UsageError(f"{folders[0]} is a report; give the folders of studies or runs")
    return _each_once(studies), _each_once(runs)


def _each_once(folders: Sequence[Path]) -> list[Path]:
    """The folders without those that are named a second time, in other words or by a link."""
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def _check_target(target: Path, studies: Sequence[Path]) -> None:
    """Refuse a folder in which a report would replace what it did not write.

    Raises:
        UsageError: if it holds files of somebody else, or the report of a study that is not asked for.
    """
    above = target.resolve().parent
    if target.name == FOLDER and (above / PLAN_FILE).is_file() and above not in [study.resolve() for study in studies]:
        raise UsageError(f"{target} is the report of the study in {above}; name another folder with --out")
    there = [name for name in FILES if (target / name).exists()]
    there += sorted(file.name for ending in ("svg", "png") for file in target.glob(f"*.{ending}"))
    page = target / PAGE
    if there and not (page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")):
        raise UsageError(f"{target / there[0]} is there and belongs to no report; name another folder with --out")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write: two shards may end together."""
    with FileLock(folder / ".report.lock"):
        yield


def _kind(folder: Path) -> str:
    if (folder / PLAN_FILE).is_file():
        return "study"
    return "run" if (folder / "result.json").is_file() else ""


def _write_parts(results: Results, target: Path, png: bool) -> Section:
    """Write everything but the page."""
    findings = Findings.of(results)
    for told in findings.too_few:
        log.warning("%s", told)
    pictures = draw_figures(results)
    _remove_figures(target)
    lines = tidy(results)
    write_csv(lines, target / "results.csv")
    if classes := by_class(results):
        write_csv(classes, target / "per_class.csv")
    else:  # that of before would tell of other runs
        (target / "per_class.csv").unlink(missing_ok=True)
    write_parquet(lines, target / "results.parquet")
    write_text(target / "summary.json", json.dumps(findings.as_dict(), indent=1) + "\n")
    write_text(target / TABLES, markdown(findings, pictures))
    return Section(findings, pictures, _write_figures(pictures, target, png), target)


def _write_figures(pictures: Mapping[str, Picture], target: Path, png: bool) -> dict[str, str]:
    """Write the figures and return name -> SVG."""
    drawn = {name: picture.figure for name, picture in pictures.items() if isinstance(picture, Drawing)}
    svgs = {}
    for name, figure in drawn.items():
        svgs[name] = svg_bytes(figure).decode()
        write_text(target / f"{name}.svg", svgs[name])
        if png:
            with atomic_write(target / f"{name}.png") as part:
                part.write_bytes(_png(figure))
    return svgs


def _remove_figures(target: Path) -> None:
    """Remove the figures that an earlier report has made, and no other files: `target` may be any folder."""
    tables = target / TABLES
    text = tables.read_text(encoding="utf-8") if tables.is_file() else ""
    for name in re.findall(r"^!\[.*\]\(([^/()]+)\.svg\)$", text, re.MULTILINE):
        for kind in ("svg", "png"):
            (target / f"{name}.{kind}").unlink(missing_ok=True)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
