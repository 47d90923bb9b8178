"""Draw the figures of the study pages from the committed results of their runs.

    python docs/studies/figures.py              # the SVGs beside this file
    python docs/studies/figures.py FOLDER       # somewhere else

A page's figures are those of the study's report. The report reads run folders; here the tables that are left of them
(``benchmarks/results/studies/*/results.csv`` and ``summary.json``) stand in.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from kdlab.analysis.svg import svg_bytes
from kdlab.atomic import atomic_write
from kdlab.studies.canvas import Drawing
from kdlab.studies.figures import draw_figures
from kdlab.studies.plan import Plan, PlannedRun
from kdlab.studies.results import PROTOCOL, Results, Row

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "benchmarks" / "results" / "studies"
FIGURES = {  # file -> study, and its figure in the report
    "alpha_mnist.svg": ("alpha_mnist", "distilled_alpha"),
    "grid_mnist.svg": ("grid_mnist", "distilled_alpha_temperature"),
    "conditions_mnist.svg": ("conditions_mnist", "labels1000_alpha"),
    "noise_mnist.svg": ("noise_mnist", "wrong_labels"),
    "grid_mnist_landscape.svg": ("grid_mnist", "loss_landscape"),
}


def read_tables(folder: Path) -> Results:
    """Return what the tables of a study hold: its students with their grid values and metrics."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    columns = list(lines[0])
    keys = columns[columns.index("variant") + 1 : columns.index("seed")]
    metrics = tuple(columns[columns.index("seed") + 1 : columns.index("train_seconds")])
    rows = tuple(_row(line, keys, metrics) for line in lines if line["role"] == "student")
    plan = Plan(summary["study"], summary["question"], metrics, (), tuple(row.run for row in rows))
    return Results(folder, plan, rows, (), ())


def _row(line: dict[str, str], keys: list[str], metrics: tuple[str, ...]) -> Row:
    values = {key: json.loads(line[key]) for key in keys if line[key]}
    run = PlannedRun(line["run"], "student", line["variant"], values, int(line["seed"]), (), ())
    numbers = {metric: float(line[metric]) for metric in metrics if line[metric]}
    result: dict[str, Any] = {"protocol": {key: line[key] for key in PROTOCOL}}
    for metric, number in numbers.items():
        *groups, name = metric.split(".")
        place = result
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = number
    return Row(run, RESULTS / line["run"], numbers, result)


def main(target: Path) -> None:
    """Write all figures into a folder."""
    for study in dict.fromkeys(study for study, _ in FIGURES.values()):
        pictures = draw_figures(read_tables(RESULTS / study))
        for file, (_, name) in ((file, figure) for file, figure in FIGURES.items() if figure[0] == study):
            picture = pictures[name]
            assert isinstance(picture, Drawing), picture
            with atomic_write(target / file) as part:
                part.write_bytes(svg_bytes(picture.figure))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
