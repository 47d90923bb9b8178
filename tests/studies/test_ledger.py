"""The ledger: states come from files and a lock, and of many who want a run one gets it."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from kdlab.studies.ledger import Entry, leftovers

FORK = multiprocessing.get_context("fork")
STARTERS, ENTRIES = 20, 5


def finish(entry):
    entry.folder.path.mkdir(parents=True, exist_ok=True)
    entry.folder.result.write_text("{}")


def hold(study, ready):
    with Entry(study, "a").claim() as ours:
        assert ours
        ready.set()
        time.sleep(60)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_states_follow_the_files(tmp_path):
    entry = Entry(tmp_path, "a")
    assert entry.state == "pending"
    entry.fail(5)
    assert entry.state == "failed"
    finish(entry)
    assert entry.state == "done"


def test_a_run_is_running_as_long_as_its_process_lives(tmp_path):
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(20)
    assert Entry(tmp_path, "a").state == "running"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert Entry(tmp_path, "a").state == "pending"


def test_a_claimed_run_cannot_be_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr("kdlab.studies.ledger.LOOKING_S", 0.05)
    with Entry(tmp_path, "a").claim() as ours, Entry(tmp_path, "a").claim() as theirs:
        assert (ours, theirs) == (True, False)
    with Entry(tmp_path, "a").claim() as now:
        assert now


def work(study):
    for number in range(ENTRIES):
        entry = Entry(study, f"run{number}")
        with entry.claim() as ours:
            if ours and entry.state != "done" and not entry.folder.result.exists():
                with (study / "worked").open("a") as file:
                    file.write(f"{number}\n")
                time.sleep(0.02)
                finish(entry)


def test_of_20_starters_one_works_on_each_run(tmp_path):
    processes = [FORK.Process(target=work, args=(tmp_path,)) for _ in range(STARTERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted((tmp_path / "worked").read_text().split()) == [str(number) for number in range(ENTRIES)]
    assert [Entry(tmp_path, f"run{number}").state for number in range(ENTRIES)] == ["done"] * ENTRIES


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("epoch 1\nkdlab: error: logit_loss is nan\n", "exit code 5: logit_loss is nan"),
        ("epoch 1\nSegmentation fault\n", "exit code 5: Segmentation fault"),
        ("", "exit code 5: no output"),
    ],
)
def test_a_failure_keeps_its_reason(tmp_path, output, reason):
    entry = Entry(tmp_path, "a")
    entry.folder.path.mkdir()
    entry.output.write_text("much\n" * 50 + output if output else "")
    entry.fail(5)
    assert entry.reason == reason
    assert len(json.loads(entry.failure.read_text())["output"]) <= 12


def test_a_run_with_a_resume_point_continues(tmp_path):
    study = tmp_path / "studies" / "s"
    entry = Entry(study, "a")
    place = ["--runs_dir", str(tmp_path), "--experiment", "studies/s", "--name", "a"]
    assert entry.place == place
    entry.folder.last.parent.mkdir(parents=True)
    entry.folder.last.touch()
    assert entry.place == [*place, "--ckpt_path", "last"]


def test_leftovers_are_finished_runs_outside_the_plan(tmp_path):
    for name in ("a", "b"):
        finish(Entry(tmp_path, name))
    Entry(tmp_path, "c").folder.path.mkdir()
    assert leftovers(tmp_path, {"a"}) == [tmp_path / "b"]
