"""What the page of a report shows of a study, as plain values for its template."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kdlab.studies.costs import COSTS, NOT_PROFILED, parameters
from kdlab.studies.findings import Findings
from kdlab.studies.formats import mean_and_half_width, scale, short_name, single
from kdlab.studies.results import ACCURACY, Results, Row, lookup
from kdlab.studies.statistics import Summary
from kdlab.studies.tables import in_band, p_value, trials

# what is said of the making of the numbers: name -> key of result.json
ORIGINS = {
    "command": "environment.command",
    "commit": "environment.git_commit",
    "device": "environment.device",
    "processes": "world_size",
    "threads": "environment.threads",
    "platform": "environment.platform",
    "Python": "environment.python",
    "precision": "precision",
}
# where runs that differ are worth a warning
DOUBTFUL = ("commit", "device", "processes", "threads", "precision", "versions")

Place = tuple[str, str, str]  # role, id and cell of a run
Runs = Mapping[Place, dict[str, Any]]  # their lines


@dataclass(frozen=True)
class Number:
    """A number as it is shown and as it is."""

    text: str
    value: float


def run_lines(rows: Iterable[Row], key: str, page: Path, results: Results) -> dict[Place, dict[str, Any]]:
    """The line of each run: several where it belongs to several cells."""
    lines: dict[Place, dict[str, Any]] = {}
    before: Counter[str] = Counter()
    for row in rows:
        if _place(row) not in lines:
            again = f"-{before[row.run.id] + 1}" if before[row.run.id] else ""
            anchor = f"{key}-run-{quote(row.run.id, safe='')}{again}"
            lines[_place(row)] = _run_line(row, anchor, page, results)
            before[row.run.id] += 1
    return lines


def lines_of(rows: Iterable[Row], runs: Runs) -> list[dict[str, Any]]:
    """The lines of some runs."""
    return [runs[_place(row)] for row in rows]


def _place(row: Row) -> Place:
    """Cells may share a run, and so may a teacher and a student."""
    return row.run.role, row.run.id, row.cell


def _run_line(row: Row, anchor: str, page: Path, results: Results) -> dict[str, Any]:
    """One run: what it is, what came out, where its files are."""
    run = row.run
    metrics = results.plan.metrics
    return {
        "id": run.id,
        "anchor": anchor,
        "label": run.label,
        "role": run.role,
        "variant": run.variant,
        "values": run.values,
        "seed": run.seed,
        "metrics": [None if metric not in row.metrics else _number(row.metrics[metric], metric) for metric in metrics],
        "seconds": None if row.train_seconds is None else Number(f"{row.train_seconds:.1f}", row.train_seconds),
        "finished": row.finished,
        "commit": str(row.origin.get("git_commit") or "")[:10],
        "links": {
            name: relative_link(row.folder / name, page)
            for name in ("", "config.yaml", "result.json", "log.txt")
            if (row.folder / name).exists()
        },
        "command": _command(row),
        "config": _text(row.folder / "config.yaml"),
    }


def _command(row: Row) -> str:
    """What trained this run; by its plan, where ``@ID`` is another run of the study, if its result does not know."""
    if command := row.origin.get("command"):
        return str(command)
    return f"python -m kdlab fit {shlex.join(row.run.arguments)}" if row.run.arguments else ""


def cell_line(findings: Findings, cell: str, runs: Runs) -> dict[str, Any]:
    """One cell: its summaries and the runs behind them, if any."""
    rows = findings.results.cells.get(cell, [])
    return {
        "label": cell,
        "n": len(rows),
        "values": [
            _summary(found[cell], metric) if cell in found else None for metric, found in findings.cells.items()
        ],
        "runs": lines_of(rows, runs),
    }


def selection_lines(findings: Findings, runs: Runs) -> list[dict[str, Any]]:
    """One line per search: its best trial, what that reached, and out of how many it was selected."""
    return [
        {
            "variant": one.search.variant,
            "best": one.best,
            "reached": [
                {"metric": short_name(metric), "unit": scale(metric)[1], **_summary(summaries[one.best], metric)}
                for metric, summaries in findings.cells.items() if one.best and one.best in summaries
            ],
            "runs": lines_of(findings.results.cells.get(one.best or "", []), runs),
            "selected": trials(one),
            "finished": one.finished,
            "trials": one.search.trials,
        }
        for one in findings.selections
    ]  # fmt: skip


def comparison_lines(findings: Findings, runs: Runs) -> list[dict[str, Any]]:
    """One line per tested pair, with the runs of both cells on their common seeds."""
    cells = findings.results.cells
    lines = []
    for pair in findings.compared:
        result = pair.result
        used = [
            row for cell in (pair.cell, pair.against) for row in cells.get(cell, []) if row.run.seed in result.seeds
        ]
        lines.append(
            {
                "metric": short_name(pair.metric),
                "cell": pair.cell,
                "against": pair.against,
                "n": len(result.seeds),
                "unit": " points" if scale(pair.metric)[1] else "",
                "difference": None if result.difference is None else _summary(result.difference, pair.metric),
                "effect": None
                if result.effect_size is None
                else Number(f"{result.effect_size:.2f}", result.effect_size),
                "p": [None if p is None else Number(p_value(p), p) for p in (result.p, result.p_holm)],
                "verdict": result.verdict,
                "runs": lines_of(used, runs),
            }
        )
    return lines


def published_lines(findings: Findings, runs: Runs) -> list[dict[str, Any]]:
    """One line per published number, with ours beside it."""
    return [
        {
            "label": one.cell,
            "published": _number(one.published.accuracy, ACCURACY),
            "protocol": one.published.protocol,
            "source": one.published.source,
            "n": len(one.rows),
            "ours": None if one.ours is None else _summary(one.ours, ACCURACY),
            "difference": None if one.difference is None else _summary(one.difference, ACCURACY),
            "verdict": one.verdict,
            "in_band": in_band(one),
            "note": one.note,
            "runs": lines_of(one.rows, runs),
        }
        for one in findings.reproduced
    ]


def cost_lines(results: Results, runs: Runs) -> list[dict[str, Any]]:
    """One line per cell and teacher with the costs of its student; none where nothing was profiled."""
    groups = results.cells_and_teachers
    if all(cost.of(row).reason == NOT_PROFILED for rows in groups.values() for row in rows for cost in COSTS):
        return []
    return [
        {
            "label": label,
            "network": ", ".join(dict.fromkeys(str(lookup(row.result, "student.network")) for row in rows)),
            "parameters": _plain([parameters(row) for row in rows]),
            "costs": [
                {"words": cost.words, "number": _plain([cost.of(row).value for row in rows]),
                 "reason": "; ".join(dict.fromkeys(found.reason for row in rows if (found := cost.of(row)).reason))}
                for cost in COSTS
            ],
            "runs": lines_of(rows, runs),
        }
        for label, rows in groups.items()
    ]  # fmt: skip


def _plain(values: Sequence[float | None]) -> dict[str, Number] | None:
    """Mean of what was measured, and lowest and highest value where they differ."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = {"mean": Summary.of(known).mean, "low": min(known), "high": max(known)}
    shown = {name: Number(f"{value:,.0f}" if value >= 1000 else f"{value:.3g}", value) for name, value in found.items()}
    return shown if shown["low"].text != shown["high"].text else {"mean": shown["mean"]}


def _summary(summary: Summary, metric: str) -> dict[str, Number | None]:
    """Mean, half width of its interval, and standard deviation."""
    factor, _ = scale(metric)
    mean, half_width = mean_and_half_width(summary, metric)
    return {
        "mean": Number(mean, summary.mean),
        "half_width": None if half_width is None else Number(half_width, summary.half_width or 0.0),
        "sd": None if summary.sd is None else Number(f"{factor * summary.sd:.3g}", summary.sd),
    }


def _number(value: float, metric: str) -> Number:
    return Number(single(value, metric), value)


def origins(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Name of an origin -> what it was -> in how many runs."""
    origins = {
        name: _counts([str(lookup(row.result, key)) for row in rows if lookup(row.result, key) is not None])
        for name, key in ORIGINS.items()
    }
    versions = [row.origin.get("versions") or {} for row in rows]
    origins["versions"] = _counts([", ".join(f"{name} {known[name]}" for name in known) for known in versions if known])
    dates = sorted(row.finished for row in rows if row.finished)
    origins["finished"] = {" to ".join(dict.fromkeys((dates[0], dates[-1]))): len(dates)} if dates else {}
    return {name: found for name, found in origins.items() if found}


def _counts(values: Sequence[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def doubts(results: Results) -> list[str]:
    """Where the students were not made alike; their teachers run alone and so have more threads."""
    found = {name: values for name, values in origins(results.rows).items() if name in DOUBTFUL and len(values) > 1}
    return [
        f"The runs differ in {name}: {'; '.join(f'{value} ({n})' for value, n in values.items())}."
        for name, values in found.items()
    ]


def total_time(results: Results) -> Number:
    """Time of training of all runs, each counted once; its value is in seconds."""
    seconds = sum({row.run.id: row.train_seconds or 0.0 for row in (*results.teachers, *results.rows)}.values())
    minutes, rest = divmod(round(seconds), 60)
    return Number(f"{minutes // 60} h {minutes % 60} min {rest} s", seconds)


def relative_link(path: Path, page: Path) -> str:
    """A relative address, whatever the names of the folders."""
    return quote(os.fsencode(Path(os.path.relpath(path, page)).as_posix()))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
