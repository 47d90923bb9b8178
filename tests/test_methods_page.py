"""docs/methods.md says what the code says: every class, its default weights, every config."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import kdlab.losses
import kdlab.methods
from kdlab.losses import LogitLoss
from kdlab.methods import LogitMatching, Method
from kdlab.methods.weights import TermWeights, term_weights

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text()
DATA_SETS = ("digits", "mnist", "cifar100")
CONFIGS = {f"{path.parent.name}/{path.stem}" for data in DATA_SETS for path in (ROOT / "configs" / data).glob("*.yaml")}


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first cell; what is in brackets and backticks counts there."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| [")]
    return {cells[0].split("[")[1].split("]")[0].strip("`"): [cell.strip() for cell in cells] for cells in lines}


METHODS, LOSSES, VARIANTS = rows("Methods"), rows("Logit losses"), rows("By configuration alone")
METHOD_CLASSES = {name: getattr(kdlab.methods, name) for name in kdlab.methods.__all__ if name != "Method"}
LOSS_CLASSES = {
    name: loss
    for name in kdlab.losses.__all__
    if issubclass(loss := getattr(kdlab.losses, name), LogitLoss) and loss is not LogitLoss
}


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a constructor that have a default."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def default_weights(method: type[Method]) -> dict[str, float]:
    """The weight of each term that the class sets where the user sets none."""
    own = {
        name.removesuffix("_weight"): value
        for name, value in defaults(method).items()
        if name.endswith("_weight") and value is not None
    }
    return {**method.default_weights._asdict(), **own} if issubclass(method, LogitMatching) else own


def pairs(cell: str) -> dict[str, str]:
    """``a 1, b (2, 3)`` as a dict of text."""
    return dict(re.findall(r"(\w+) (\([^)]*\)|[^,\s]+)", cell))


def patterns(cell: str) -> list[str]:
    """The configs that a cell names, such as ``*/hint_transfer``."""
    return re.findall(r"`(\S+/\w+)`", cell)


def expand(pattern: str) -> set[str]:
    return {name for name in CONFIGS if Path(name).match(pattern)}


def number(value: float | tuple[float, ...]) -> str:
    return f"({', '.join(map(number, value))})" if isinstance(value, tuple) else f"{value:g}"


def test_every_method_and_every_logit_loss_has_a_row_and_nothing_else_has_one() -> None:
    assert set(METHODS) == set(METHOD_CLASSES)
    assert set(LOSSES) == set(LOSS_CLASSES)


@pytest.mark.parametrize("name", METHOD_CLASSES)
def test_default_weights_of_a_method_are_those_of_the_class(name: str) -> None:
    wanted = {term: number(weight) for term, weight in default_weights(METHOD_CLASSES[name]).items()}
    assert pairs(METHODS[name][2]) == wanted


@pytest.mark.parametrize("name", LOSS_CLASSES)
def test_defaults_of_a_logit_loss_are_those_of_the_class(name: str) -> None:
    loss = LOSS_CLASSES[name]
    wanted = {key: loss().temperature if value is None else value for key, value in defaults(loss).items()}
    assert pairs(LOSSES[name][2]) == {key: number(value) for key, value in wanted.items()}


@pytest.mark.parametrize("heading", [*METHODS, *LOSSES, *VARIANTS])
def test_every_row_has_a_card_and_its_link_leads_there(heading: str) -> None:
    cards = {line.removeprefix("### ").strip("`") for line in PAGE.splitlines() if line.startswith("### ")}
    assert heading[0].upper() + heading[1:] in cards
    row = {**METHODS, **LOSSES, **VARIANTS}[heading]
    assert f"(#{heading.lower().replace(' ', '-')})" in row[0]


def test_every_card_has_a_row() -> None:
    cards = {line.removeprefix("### ").strip("`").lower() for line in PAGE.splitlines() if line.startswith("### ")}
    assert cards == {name.lower() for name in [*METHODS, *LOSSES, *VARIANTS]}


def test_every_named_config_exists_and_every_config_is_named() -> None:
    named = [
        pattern for table in (METHODS, LOSSES, VARIANTS) for row in table.values() for pattern in patterns(row[-1])
    ]
    assert [pattern for pattern in named if not expand(pattern)] == []
    assert CONFIGS - {name for pattern in named for name in expand(pattern)} == set()


@pytest.mark.parametrize("name", METHOD_CLASSES)
def test_configs_in_the_row_of_a_method_are_of_that_method(name: str) -> None:
    for config in {config for pattern in patterns(METHODS[name][-1]) for config in expand(pattern)}:
        assert yaml.safe_load((ROOT / "configs" / f"{config}.yaml").read_text())["model"]["class_path"] == name


def test_alpha_is_what_the_page_says_it_is() -> None:
    weights = term_weights(alpha=0.1, label_weight=None, logit_weight=None, default=TermWeights(1, 1))
    row = next(line for line in PAGE.splitlines() if line.startswith("| ") and "| kdlab;" in line)
    assert row.startswith(f"| {weights.label:.0%} label, {weights.logit:.0%} teacher |")
