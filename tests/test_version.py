"""The version is typed in kdlab/__init__.py; what cannot read it there says the same."""

import tomllib
from pathlib import Path

import yaml

import kdlab

ROOT = Path(__file__).parents[1]


def test_the_package_is_built_with_the_version_in_its_code():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["hatch"]["version"]["path"] == "kdlab/__init__.py"


def test_a_citation_is_of_the_newest_release_in_the_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == kdlab.__version__
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## Unreleased", f"## {citation['version']} - {citation['date-released']}"]
