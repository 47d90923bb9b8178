"""What an analysis leaves: numbers, a page to read and figures in the run's folder, the main figures in its result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdlab.analysis import FOUR_CLASSES, TEN_CLASSES, Analysis, headline, standardization_page, toy_table
from kdlab.analysis.figures import draw_all
from kdlab.analysis.plain import as_plain_data
from kdlab.analysis.svg import svg_bytes
from kdlab.atomic import atomic_write, write_text
from kdlab.verbs.loaded import LoadedRun
from kdlab.verbs.origin import Subject
from kdlab.verbs.run_record import add_to_run


def analysis_folder(run: LoadedRun) -> Path:
    """Where the analysis of a run goes; that of a checkpoint which was named goes into a folder of its name."""
    assert run.folder is not None
    assert run.weights is not None
    folder = run.folder.path / "analysis"
    return folder if run.is_final else folder / run.weights.stem


def write_analysis(
    folder: Path, content: Mapping[str, Any], splits: Mapping[str, Analysis], reports: Mapping[str, Any]
) -> None:
    """Write ``analysis.json``, ``logit_standardization.md`` and the figures, each atomically.

    Args:
        folder: where to.
        content: what analysis.json tells of the whole.
        splits: the analysis of each split.
        reports: the same as plain data.
    """
    toys = as_plain_data({example.name: toy_table(example) for example in (FOUR_CLASSES, TEN_CLASSES)})
    numbers = json.dumps({**content, "toy_examples": toys, "splits": reports}, indent=1, allow_nan=False) + "\n"
    page = standardization_page(splits)
    drawn = {
        folder / f"{split}_{name}.svg": svg_bytes(figure)
        for split, analysis in splits.items()
        for name, figure in draw_all(analysis).items()
    }
    for path, svg in drawn.items():
        with atomic_write(path) as part:
            part.write_bytes(svg)
    write_text(folder / "logit_standardization.md", page)
    write_text(folder / "analysis.json", numbers)
    for old in set(folder.glob("*.svg")) - set(drawn):  # of an earlier analysis, which is replaced
        old.unlink()


def add_headline(subject: Subject, splits: Mapping[str, Analysis]) -> None:
    """Put the main figures of each split into the run's result and loggers, under ``analysis``."""
    weights = {name: subject.origin[name] for name in ("student_sha256", "teacher_sha256")}
    add_to_run(subject.run, ("analysis",), {**weights, **{split: headline(each) for split, each in splits.items()}})
