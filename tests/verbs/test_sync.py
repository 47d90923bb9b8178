"""`kdlab sync`: what is sent, and what is said where it cannot be."""

import subprocess
from pathlib import Path

import pytest
import wandb
from wandb.cli.cli import cli as wandb_cli

from kdlab.cli import main
from kdlab.run import wandb_server
from kdlab.run.folder import RunFolder


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
        assert command[1:5] == ["-m", "wandb", "sync", "--include-online"]
        for file in map(Path, command[5:]):
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
    assert main(["sync", str(run)]) == 4
    said = capsys.readouterr().err
    assert said.startswith("kdlab: error: 1 of 2 files were not sent, first ")
    assert "Traceback" not in said


def test_wandb_itself_takes_all_files_that_it_is_given(run, server, monkeypatch, capfd):
    """Its own command, up to where it would ask for a key."""
    server(None)

    def dry_run(command, check):
        assert command[1:3] == ["-m", "wandb"]
        wandb_cli.main([command[3], "--dry-run", *command[4:]], standalone_mode=False)

    monkeypatch.setattr(subprocess, "run", dry_run)
    wandb.termsetup(wandb.Settings(silent=False), None)  # a logger of this process may have silenced it
    assert main(["sync", str(run)]) == 4  # nothing was sent in fact
    said = capfd.readouterr().err
    assert "Would sync 2 run(s)" in said
    assert "Skipped" not in said


def test_a_run_that_is_not_over_is_not_sent(run, server, sent, capsys):
    server(None)
    process = RunFolder(run)
    process.claim()
    assert main(["sync", str(run)]) == 3
    assert capsys.readouterr().err == (
        f"kdlab: error: {run} belongs to a running process; send it when the run is over. Nothing was sent\n"
    )
    assert not sent
    process.release()
    assert main(["sync", str(run)]) == 0


@pytest.mark.parametrize("refusal", ["there is no key for http://server: run `wandb login`", "it does not answer"])
def test_without_key_or_server_nothing_is_tried(run, server, sent, capsys, refusal):
    server(refusal)
    assert main(["sync", str(run)]) == 2
    assert capsys.readouterr().err == f"kdlab: error: nothing was sent: {refusal}\n"
    assert not sent


def test_a_folder_without_a_tracked_run_is_named(tmp_path, capsys):
    assert main(["sync", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no run that W&B tracked" in capsys.readouterr().err
    assert main(["sync", str(tmp_path / "typo")]) == 2
    assert f"there is no folder {tmp_path / 'typo'}" in capsys.readouterr().err


def test_the_ending_is_that_of_wandb(tmp_path):
    beta_sync = pytest.importorskip("wandb.cli.beta_sync", reason="its place in this version of wandb")
    file = tmp_path / "run-ab.wandb"
    file.touch()
    assert not beta_sync._is_synced(file)
    wandb_server.mark_sent(tmp_path)
    assert beta_sync._is_synced(file)
    assert wandb_server.is_sent(file)
