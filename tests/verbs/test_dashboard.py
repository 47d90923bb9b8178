"""`kdlab dashboard`: the workspace as a file, equal to the one that was looked at."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.run import wandb_server

GOLDEN = Path(__file__).with_name("golden") / "workspace.json"
DOCS = Path(__file__).parents[2] / "docs" / "tracking.md"
needs_workspaces = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed"
)


@needs_workspaces
def test_the_file_is_the_golden_one_and_needs_no_account(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_server.Server, "find", lambda: pytest.fail("nobody is to be asked"))
    out = tmp_path / "workspace.json"
    assert main(["dashboard", "kdlab", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == json.loads(GOLDEN.read_text())


def panels():
    sections = json.loads(GOLDEN.read_text())["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [panel["config"] for panel in section["panels"]] for section in sections}


def test_it_shows_accuracy_by_method_cost_against_accuracy_and_losses_by_term():
    found = panels()
    accuracy = found["Accuracy by method"][0]
    assert (accuracy["metrics"], accuracy["groupBy"], accuracy["groupAgg"]) == (
        ["test/accuracy"],
        "method.value",
        "mean",
    )
    axes = [(panel["xAxis"], panel["yAxis"]) for panel in found["Cost against accuracy"]]
    assert ("summary:profile/macs", "summary:test/accuracy") in axes
    terms = found["Losses by term"][0]["metricRegex"]
    assert re.fullmatch(terms, "train/label_loss")
    assert re.fullmatch(terms, "train/logit_loss")
    assert not re.fullmatch(terms, "train/logit_loss_step")


def test_every_name_in_it_is_a_promised_one():
    text = json.dumps(panels())
    names = set(re.findall(r"(?:test|train|val|profile|student)/[\w]+", text))
    promised = DOCS.read_text()
    assert names
    assert not [name for name in names if name not in promised]


def test_without_the_package_it_says_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(["dashboard", "kdlab", "--out", str(tmp_path / "w.json")]) == 2
    assert "pip install 'kdlab[dashboard]'" in capsys.readouterr().err


def test_pushing_needs_an_entity(capsys):
    assert main(["dashboard", "kdlab", "--push"]) == 2
    assert "give ENTITY/kdlab" in capsys.readouterr().err


@needs_workspaces
def test_pushing_without_a_key_writes_the_file_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        wandb_server.Server,
        "find",
        lambda: wandb_server.Server("http://server", None, "there is no key for http://server"),
    )
    out = tmp_path / "w.json"
    assert main(["dashboard", "team/kdlab", "--push", "--out", str(out)]) == 2
    assert "nothing was pushed: there is no key for http://server" in capsys.readouterr().err
    assert json.loads(out.read_text())["entity"] == "team"
