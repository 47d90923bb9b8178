"""The scripts under docs/examples and the examples in docstrings run and print what they promise."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
IN_DOCSTRINGS = [path.relative_to(ROOT) for path in (ROOT / "kdlab").rglob("*.py") if ">>>" in path.read_text()]


def run(script: str, *arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, EXAMPLES / script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def standardization_tables() -> dict[str, dict[str, list[str]]]:
    """title of the table -> role -> its cells."""
    tables = {}
    for table in run("logit_standardization.py").strip().split("\n\n"):
        title, *rows = table.splitlines()
        tables[title[:12].strip()] = {row[:12].strip(): row[12:].split(maxsplit=3) for row in rows}
    return tables


# answer, KL, KL of standardised logits, ends of the standardised logits: the figures of the report
@pytest.mark.parametrize(
    ("table", "role", "cells"),
    [
        ("4 classes", "teacher", ["1", "-", "-", "[-1.34 ... -0.45]"]),
        ("4 classes", "student A", ["2", "0.1749", "0.1347", "[-1.52 ... -0.25]"]),
        ("4 classes", "student B", ["1", "0.3457", "0.0000", "[-1.34 ... -0.45]"]),
        ("10 classes", "teacher", ["4", "-", "-", "[-1.07 ... 0.85]"]),
        ("10 classes", "student A", ["9", "0.7192", "0.1923", "[-1.02 ... 1.91]"]),
        ("10 classes", "student B", ["4", "1.2317", "0.0000", "[-1.07 ... 0.85]"]),
    ],
)
def test_the_toy_example_of_logit_standardization_prints_the_published_figures(
    standardization_tables, table, role, cells
):
    assert standardization_tables[table][role] == cells


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"draw_shapes.py", "logit_standardization.py"}


@pytest.mark.parametrize("path", IN_DOCSTRINGS, ids=str)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    result = doctest.testmod(importlib.import_module(".".join(path.with_suffix("").parts)))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.slow
def test_the_figures_of_the_study_pages_are_those_of_the_committed_results(tmp_path: Path) -> None:
    run("../studies/figures.py", str(tmp_path))
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in (ROOT / "docs" / "studies").glob("*.svg"))
    for name in drawn:
        assert _numbers(tmp_path / name) == pytest.approx(_numbers(ROOT / "docs" / "studies" / name), abs=0.01), name


def _numbers(svg: Path) -> list[float]:
    """All places and sizes in a drawing; other versions of matplotlib round them otherwise."""
    return [float(number) for number in re.findall(r"-?\d+\.\d+", svg.read_text())]
