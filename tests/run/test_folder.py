import json
import os
import signal
import subprocess
import sys

import pytest

from kdlab.errors import BusyError, UsageError
from kdlab.run.folder import RunFolder, claim_new, newest


def hold_a_run(path):
    folder = RunFolder(path)
    folder.student.parent.mkdir(parents=True, exist_ok=True)
    folder.student.write_bytes(b"weights")
    return folder


class OtherProcess:
    """A live process that owns a folder, until it is told to stop or is killed."""

    def __init__(self, path):
        code = f"from kdlab.run.folder import RunFolder\nfolder = RunFolder({str(path)!r})\nfolder.claim()\n"
        code += "print('owned', flush=True)\ninput()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "owned\n"

    def end(self, kill=True):
        if kill:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate("\n" if not kill else None)


@pytest.fixture
def owner(tmp_path):
    other = OtherProcess(tmp_path / "run")
    yield other
    if other.process.poll() is None:
        other.end()


def test_a_claimed_folder_says_who_owns_it(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    folder.claim()
    owner = json.loads((folder.path / "owner.json").read_text())
    assert owner["pid"] == os.getpid()
    assert set(owner) == {"host", "pid", "started"}
    folder.release()
    assert not (folder.path / "owner.json").exists()


def test_a_folder_of_another_live_process_is_busy_and_its_owner_is_named(tmp_path, owner):
    for _ in range(2):  # asking does not make it free
        with pytest.raises(BusyError, match=rf"run belongs to .*process {owner.process.pid} on .*--name") as caught:
            RunFolder(tmp_path / "run").claim()
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
    with pytest.raises(BusyError):
        claim_new(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "owner.json").read_text())["pid"] == owner.process.pid


@pytest.mark.parametrize("kill", [True, False])
def test_a_folder_is_free_again_when_its_owner_has_ended_or_was_killed(tmp_path, owner, kill):
    owner.end(kill)
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    assert json.loads((folder.path / "owner.json").read_text())["pid"] == os.getpid()
    folder.release()


def test_a_folder_cannot_be_claimed_twice_in_one_process(tmp_path):
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path)
    folder.claim()
    with pytest.raises(BusyError):
        other.claim()
    folder.release()
    other.claim()
    other.release()


def test_a_broken_note_about_the_owner_does_not_hide_that_the_folder_is_busy(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim()
    for note in ("", "{", "[]", '{"pid": 3}'):
        (tmp_path / "owner.json").write_text(note)
        with pytest.raises(BusyError, match="belongs to a running process"):
            RunFolder(tmp_path).claim()
    folder.release()


def test_a_file_in_the_way_is_a_usage_error_with_the_fix(tmp_path):
    (tmp_path / "runs").write_text("a file")
    for path in (tmp_path / "runs", tmp_path / "runs" / "digits" / "run"):
        for claim in (RunFolder(path).claim, lambda path=path: claim_new(path)):
            with pytest.raises(UsageError, match=r"runs.* cannot be written \(.*\); .*--runs_dir") as caught:
                claim()
            assert "\n" not in str(caught.value)
    assert (tmp_path / "runs").read_text() == "a file"


def test_a_disk_that_fills_up_while_a_folder_is_claimed_leaves_it_free(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    folder = RunFolder(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        folder.claim()
    monkeypatch.undo()
    other = RunFolder(tmp_path)
    other.claim()
    other.release()


def test_a_new_run_takes_the_wanted_folder(tmp_path):
    folder = claim_new(tmp_path / "run")
    assert folder.path == tmp_path / "run"
    folder.release()


@pytest.mark.parametrize("what", ["last", "student", "result"])
def test_a_folder_that_holds_a_run_is_never_taken_again(tmp_path, what):
    file = getattr(RunFolder(tmp_path / "run"), what)
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    folder = claim_new(tmp_path / "run")
    assert folder.path == tmp_path / "run-2"
    folder.release()
    assert file.read_text() == "precious"
    assert not (tmp_path / "run" / "owner.json").exists()


def test_new_runs_are_numbered(tmp_path):
    names = []
    for _ in range(4):
        folder = claim_new(tmp_path / "seed0.1")
        names.append(folder.path.name)
        hold_a_run(folder.path)
        folder.release()
    assert names == ["seed0.1", "seed0.1-2", "seed0.1-3", "seed0.1-4"]


def test_a_run_that_left_nothing_is_no_run(tmp_path):
    folder = claim_new(tmp_path / "run")
    folder.release()
    again = claim_new(tmp_path / "run")
    assert again.path == folder.path
    again.release()


def test_a_run_that_came_and_went_while_the_folder_was_claimed_is_kept(tmp_path, monkeypatch):
    claim = RunFolder.claim

    def slow_claim(folder):
        if folder.path.name == "run":
            hold_a_run(folder.path)
        claim(folder)

    monkeypatch.setattr(RunFolder, "claim", slow_claim)
    folder = claim_new(tmp_path / "run")
    assert folder.path.name == "run-2"
    folder.release()
    again = RunFolder(tmp_path / "run")
    again.claim()
    again.release()


def test_a_finished_run_with_the_next_number_in_use_does_not_stop_a_new_one(tmp_path):
    """The wanted folder holds a finished run; somebody is working in the next: that is not our folder's owner."""
    hold_a_run(tmp_path / "finished")
    other = OtherProcess(tmp_path / "finished-2")
    try:
        folder = claim_new(tmp_path / "finished")
        assert folder.path.name == "finished-3"
        folder.release()
    finally:
        other.end()


def started(path, name, at_s):
    """A run that was called `name` when it was started."""
    hold_a_run(path)
    config = path / "config.yaml"
    config.write_text(f"name: {name}\n")
    os.utime(config, (at_s, at_s))


def test_the_newest_run_is_the_one_that_was_started_last(tmp_path):
    for at_s, name in enumerate(("run", "run-2", "run-3")):
        started(tmp_path / name, "run", at_s)
    (tmp_path / "run-4").mkdir()  # claimed, but nothing came of it
    started(tmp_path / "run-20-percent", "run-20-percent", 10)
    started(tmp_path / "run-5", "run-5", 10)  # a run of that name
    assert newest(tmp_path / "run").path == tmp_path / "run-3"


def test_a_gap_in_the_numbers_hides_no_run(tmp_path):
    started(tmp_path / "run-2", "run", 1)
    assert newest(tmp_path / "run").path == tmp_path / "run-2"
    started(tmp_path / "run", "run", 2)  # which took the free name
    assert newest(tmp_path / "run").path == tmp_path / "run"


def test_without_a_run_there_is_no_newest_one(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("run", "never"):
        with pytest.raises(UsageError, match=f"there is no run in .*{name} .*kdlab fit"):
            newest(tmp_path / name)


def test_a_run_that_died_before_its_first_resume_point_leaves_a_folder_to_be_used_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.best.parent.mkdir(parents=True)
    folder.best.write_bytes(b"of an epoch that cannot be continued")
    taken = claim_new(tmp_path / "run")
    assert taken.path == tmp_path / "run"
    taken.release()
