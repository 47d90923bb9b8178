"""The report as one HTML page: no other file, no network, opened from the file system.

Every number stands in a ``<data>`` element with all its digits, and every row names the runs behind it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from kdlab.atomic import write_text
from kdlab.studies.canvas import CM_PER_INCH, WIDTH_CM, Drawing, Picture
from kdlab.studies.findings import Findings
from kdlab.studies.formats import scale, short_name
from kdlab.studies.page_lines import (
    Runs,
    cell_line,
    comparison_lines,
    cost_lines,
    doubts,
    lines_of,
    origins,
    published_lines,
    relative_link,
    run_lines,
    selection_lines,
    total_time,
)
from kdlab.studies.plan import cells
from kdlab.studies.results import PROTOCOL
from kdlab.studies.tables import PAIRED, PUBLISHED, SELECTED, SHOWN, protocol, reasons

TEMPLATES = Path(__file__).parent / "templates"
FILES = ("results.csv", "results.parquet", "per_class.csv", "summary.json", "tables.md")
IDENTIFIERS = re.compile(r'(\bid="|xlink:href="#|\burl\(#)')


@dataclass(frozen=True)
class Section:
    """One study, or the runs of one protocol.

    Attributes:
        findings: all numbers.
        pictures: figures, and why others were left out.
        svgs: name of each figure -> its file.
        folder: where its files are.
    """

    findings: Findings
    pictures: Mapping[str, Picture]
    svgs: Mapping[str, str]
    folder: Path


def write_page(sections: Sequence[Section], path: Path) -> None:
    """Write the page of these sections, atomically; links to run folders are relative to it."""
    names = [section.findings.results.plan.name for section in sections]
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment().get_template("page.html").render(
        title=", ".join(names),
        sections=[_section(section, number, path.parent) for number, section in enumerate(sections, start=1)],
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
    )  # fmt: skip
    write_text(path, page.encode("utf-8", "backslashreplace").decode())  # commands hold names of files


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _section(section: Section, number: int, page: Path) -> dict[str, Any]:
    """What the template shows of a section."""
    findings, key = section.findings, f"s{number}"
    results = findings.results
    drawn = [row for picture in section.pictures.values() if isinstance(picture, Drawing) for row in picture.rows]
    everything = (*results.teachers, *results.rows)
    runs = run_lines((*everything, *drawn), key, page, results)  # a teacher that is drawn may belong to no result
    return {
        "key": key,
        "name": results.plan.name,
        "question": results.plan.question,
        "warnings": [*findings.warnings, *doubts(results)],
        "protocol": protocol(results),
        "facts": {meaning: results.protocol[field] for field, meaning in PROTOCOL.items()},
        "origins": origins(everything),
        "metrics": [f"{short_name(metric)}{scale(metric)[1]}" for metric in results.plan.metrics],
        "cells": [cell_line(findings, cell, runs) for cell in cells(results.plan)],
        "shown": SHOWN,
        "searches": selection_lines(findings, runs),
        "selected": SELECTED,
        "comparisons": comparison_lines(findings, runs),
        "paired": PAIRED,
        "published": published_lines(findings, runs),
        "about_published": PUBLISHED,
        "teachers": [{"name": row.run.variant, **lines_of([row], runs)[0]} for row in results.teachers],
        "costs": cost_lines(results, runs),
        "figures": [_figure(name, section, key, runs) for name in section.svgs],
        "left_out": reasons(section.pictures),
        "grid_keys": list(dict.fromkeys(name for run in results.plan.students for name in run.values)),
        "runs": list(runs.values()),
        "missing": [run.label for run in findings.pending],
        "failed": [{"label": one.run.label, "reason": one.reason} for one in findings.failed],
        "files": {name: relative_link(path, page) for name in FILES if (path := section.folder / name).exists()},
        "time": total_time(results),
        "timed": len({row.run.id for row in everything}),
    }


def _figure(name: str, section: Section, key: str, runs: Runs) -> dict[str, Any]:
    picture = section.pictures[name]
    assert isinstance(picture, Drawing)
    return {
        "name": name,
        "title": picture.title,
        "caption": picture.caption,
        "broad": bool(picture.figure.get_figwidth() * CM_PER_INCH > WIDTH_CM + 1),
        "svg": _inline(section.svgs[name], f"{key}-{name}", picture.title),
        "runs": lines_of(picture.rows, runs),
    }


def _inline(svg: str, name: str, title: str) -> Markup:
    """An SVG file as a part of the page: names of its own, no size, no prologue, nothing that looks like an address."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    tag, rest = svg.split(">", 1)
    tag = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", tag)
    rest = IDENTIFIERS.sub(lambda match: f"{match[1]}{name}-", rest)
    # matplotlib has escaped what is written in the figure
    return Markup(tag) + Markup(' role="img" aria-label="{}">').format(title) + Markup(rest)
