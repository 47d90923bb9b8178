"""`kdlab sync`: what is sent, and what is said where it cannot be."""

import subprocess
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.run import wandb_server


@pytest.fixture
def run(tmp_path):
    """A run that was killed and continued: two files."""
    for name in ("offline-run-20260101_000002-ab/run-ab.wandb", "run-20260101_000001-ab/run-ab.wandb"):
        (tmp_path / "run" / "wandb" / name).parent.mkdir(parents=True)
        (tmp_path / "run" / "wandb" / name).write_bytes(b"")
    return tmp_path / "run"


@pytest.fixture
def server(monkeypatch):
    """`server(refusal)`: what is found out about the server."""

    def answer(refusal):
        found = wandb_server.Server("http://server", "key")
        monkeypatch.setattr(wandb_server.Server, "find", lambda: found)
        monkeypatch.setattr(wandb_server.Server, "refusal", lambda _: refusal)

    return answer


@pytest.fixture
def sent(monkeypatch):
    """The files that wandb was told to send; those in `sent.lost` it does not."""

    class Sent(list):
        lost = ()

    files = Sent()

    def run(command, check):
        assert command[1:4] == ["-m", "wandb", "sync"]
        for file in map(Path, command[4:]):
            files.append(file.parent.name)
            if file.parent.name not in files.lost:
                file.with_suffix(".wandb.synced").touch()

    monkeypatch.setattr(subprocess, "run", run)
    return files


def test_all_files_of_a_run_are_sent_in_the_order_of_their_writing_and_once(run, server, sent, capsys):
    server(None)
    assert main(["sync", str(run)]) == 0
    assert sent == ["run-20260101_000001-ab", "offline-run-20260101_000002-ab"]
    assert capsys.readouterr().out == "2 of 2 files were sent\n"
    server("it must not be asked")
    assert main(["sync", str(run)]) == 0
    assert len(sent) == 2
    assert "nothing to send" in capsys.readouterr().out


def test_what_was_not_sent_is_said(run, server, sent, capsys):
    server(None)
    sent.lost = ("offline-run-20260101_000002-ab",)
    assert main(["sync", str(run)]) == 1
    assert "1 of 2 files were not sent, first " in capsys.readouterr().err


@pytest.mark.parametrize("refusal", ["there is no key for http://server: run `wandb login`", "it does not answer"])
def test_without_key_or_server_nothing_is_tried(run, server, sent, capsys, refusal):
    server(refusal)
    assert main(["sync", str(run)]) == 2
    assert capsys.readouterr().err == f"kdlab: error: nothing was sent: {refusal}\n"
    assert not sent


def test_a_folder_without_a_tracked_run_is_named(tmp_path, capsys):
    assert main(["sync", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no run that W&B tracked" in capsys.readouterr().err


def test_the_ending_is_that_of_wandb(tmp_path):
    beta_sync = pytest.importorskip("wandb.cli.beta_sync", reason="its place in this version of wandb")
    file = tmp_path / "run-ab.wandb"
    file.touch()
    assert not beta_sync._is_synced(file)
    wandb_server.mark_sent(tmp_path)
    assert beta_sync._is_synced(file)
    assert wandb_server.is_sent(file)
