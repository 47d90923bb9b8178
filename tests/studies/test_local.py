"""The local executor with a stand-in for training, which writes a line for each call."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from kdlab.studies import executor, local, process
from kdlab.studies.ledger import Entry
from kdlab.studies.local import LocalExecutor, cores
from kdlab.studies.plan import PlannedRun

FORK = multiprocessing.get_context("fork")


def planned(name, *needs, role="student", behaviour="work"):
    weights = [argument for need in needs for argument in ("--checkpoint", f"@{need}")]
    return PlannedRun(name, role, name, {}, 0, ("--do", behaviour, *weights), needs)


def pretend(arguments, threads):
    """Stands in for `fit`: does what its option --do says."""
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    study = Path(options["--runs_dir"], options["--experiment"])
    folder = study / options["--name"]
    with (study / "calls").open("a") as file:
        file.write(
            json.dumps(
                {
                    "name": options["--name"],
                    "threads": threads,
                    "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                    "per_device": os.environ["KDLAB_RUNS_PER_DEVICE"],
                    **options,
                }
            )
            + "\n"
        )
    match options["--do"]:
        case "fail":
            print("kdlab: error: the loss is nan", file=sys.stderr)
            return 5
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            raise RuntimeError("a bug")
        case "requeue":
            return 138
        case "doze":
            time.sleep(0.5)
        case "outlast":
            while '"name": "last"' not in (study / "calls").read_text():
                time.sleep(0.02)
        case "wait":
            (folder / "waits").write_text(str(os.getpid()))
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            time.sleep(60)
    time.sleep(0.02)
    (folder / "student.safetensors").touch()
    (folder / "result.json").write_text("{}")
    return 0


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    monkeypatch.setattr(process, "_fit", pretend)
    monkeypatch.setattr(executor, "LOOK_EVERY_S", 0.02)


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    return folder


def run(study, runs, **options):
    """Work through the runs and return id -> what became of it."""
    ends = []
    LocalExecutor(study, options.pop("jobs", 2), **options).run(runs, ends.append, lambda: None)
    assert len({ended.run.id for ended in ends}) == len(ends)
    return {ended.run.id: ended for ended in ends}


def calls(study):
    return [json.loads(line) for line in (study / "calls").read_text().splitlines()]


def test_all_runs_are_done_once_and_never_again(study):
    runs = [planned(name) for name in "abcde"]
    assert {name: end.end for name, end in run(study, runs).items()} == dict.fromkeys("abcde", "done")
    again = run(study, runs)
    assert {(end.end, end.seconds) for end in again.values()} == {("done", None)}
    assert sorted(call["name"] for call in calls(study)) == list("abcde")


def test_the_same_run_in_two_cells_runs_once(study):
    run(study, [planned("a"), planned("a")])
    assert len(calls(study)) == 1


def test_teachers_come_first_and_hand_over_their_weights(study):
    run(
        study, [planned("s", "t2"), planned("free"), planned("t2", "t1", role="teacher"), planned("t1", role="teacher")]
    )
    made = calls(study)
    assert [call["name"] for call in made[:2]] == ["t1", "t2"]
    assert next(call for call in made if call["name"] == "s")["--checkpoint"] == str(
        study / "t2" / "student.safetensors"
    )


def test_threads_are_shared_and_a_lone_teacher_has_them_all(study, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    run(study, [planned("t", role="teacher"), *(planned(name, "t") for name in "abc")], jobs=4)
    assert {call["name"]: call["threads"] for call in calls(study)} == {"t": 8, "a": 2, "b": 2, "c": 2}


def test_a_teacher_beside_another_takes_its_share_only(study, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    slow = planned("slow", role="teacher", behaviour="outlast")
    run(study, [slow, planned("quick", role="teacher"), planned("last", "quick", role="teacher")], jobs=2)
    assert {call["name"]: call["threads"] for call in calls(study)} == {"slow": 4, "quick": 4, "last": 4}


def test_there_is_at_least_one_core():
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_a_run_that_slurm_stops_has_not_failed(study):
    ends = run(study, [planned("a", behaviour="requeue"), planned("b")])
    assert {name: end.end for name, end in ends.items()} == {"a": "stopped", "b": "done"}
    assert Entry(study, "a").state == "pending"


def test_a_failed_run_stops_only_what_needs_it(study):
    runs = [
        planned("t", role="teacher", behaviour="fail"),
        planned("s", "t"),
        planned("free"),
        planned("dead", behaviour="die"),
    ]
    ends = run(study, [*runs, planned("bug", behaviour="crash")])
    assert {name: end.end for name, end in ends.items()} == {
        "t": "failed", "s": "blocked", "free": "done", "dead": "failed", "bug": "failed",
    }  # fmt: skip
    assert ends["t"].reason == "exit code 5: the loss is nan"
    assert ends["s"].reason == "it needs t, seed 0, which is not done"
    assert ends["dead"].reason.startswith("exit code 137")
    assert ends["bug"].reason == "exit code 1: RuntimeError: a bug"


def test_what_somebody_else_stops_is_told_apart_from_failures(study):
    driver = LocalExecutor(study, 1)
    ends = []

    def tick():
        waits = study / "a" / "waits"
        if waits.exists() and waits.read_text():
            os.kill(int(waits.read_text()), signal.SIGTERM)
            waits.unlink()

    driver.run([planned("a", behaviour="wait"), planned("b")], ends.append, tick)
    assert {ended.run.id: ended.end for ended in ends} == {"a": "stopped", "b": "done"}
    assert ends[0].reason == "another process told it to stop; the same command continues it"
    assert Entry(study, "a").state == "pending"


def test_a_full_disk_ends_no_other_run(study, monkeypatch):
    def full(entry, code):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Entry, "fail", full)
    ends = run(study, [planned("dead", behaviour="die"), planned("free")], jobs=1)
    assert {name: end.end for name, end in ends.items()} == {"dead": "failed", "free": "done"}
    assert ends["dead"].reason == "exit code 137; [Errno 28] No space left on device"


def test_the_reason_is_that_of_the_last_attempt(study):
    run(study, [planned("a", behaviour="fail")])
    assert "nan" not in run(study, [planned("a", behaviour="die")], retry_failed=True)["a"].reason
    assert Entry(study, "a").output.read_text().count("kdlab: error: the loss is nan") == 1  # what was said stays


def test_a_run_whose_config_has_changed_since_is_not_run(study):
    ends = run(study, [planned("a"), planned("b")], is_as_planned=lambda run: run.id == "b")
    assert (ends["a"].end, ends["a"].reason, ends["b"].end) == ("failed", executor.CHANGED, "done")
    assert [call["name"] for call in calls(study)] == ["b"]
    assert Entry(study, "a").state == "pending"  # the next plan decides


def test_runs_have_a_gpu_each(study, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = [planned(name, behaviour="doze") for name in "abcd"]
    run(study, runs, jobs=4, gpus=2)
    assert sorted(call["gpu"] for call in calls(study)) == ["0", "0", "1", "1"]


@pytest.mark.parametrize(
    ("jobs", "gpus", "expected"), [(1, None, "1"), (6, 1, "6"), (5, 2, "3"), (2, 2, "1"), (2, 0, "2")]
)
def test_a_run_knows_how_many_may_share_its_device(study, jobs, gpus, expected):
    run(study, [planned("a")], jobs=jobs, gpus=gpus)
    assert [call["per_device"] for call in calls(study)] == [expected]


@pytest.mark.parametrize(("gpus", "seen", "used"), [(2, "5,7", {"5", "7"}), (1, "5", {"5"}), (None, None, {None})])
def test_of_the_gpus_that_the_study_may_use(study, monkeypatch, gpus, seen, used):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    run(study, [planned(name, behaviour="doze") for name in "ab"], jobs=2, gpus=gpus)
    assert {call["gpu"] for call in calls(study)} == used


def test_what_failed_runs_again_only_when_asked(study):
    assert run(study, [planned("a", behaviour="fail")])["a"].end == "failed"
    assert run(study, [planned("a")])["a"].reason.endswith("(--retry-failed runs it again)")
    assert len(calls(study)) == 1
    assert run(study, [planned("a")], retry_failed=True)["a"].end == "done"
    assert not Entry(study, "a").failure.exists()


def drive(study, names, jobs):
    LocalExecutor(study, jobs).run([planned(name) for name in names], lambda ended: None, lambda: None)


def test_20_drivers_do_each_run_once(study):
    names = [f"run{number}" for number in range(8)]
    drivers = [FORK.Process(target=drive, args=(study, names, 2)) for _ in range(20)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(60)
        assert driver.exitcode == 0
    assert sorted(call["name"] for call in calls(study)) == names
    assert all(Entry(study, name).state == "done" for name in names)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_and_fails_none(study, number):
    executor, ends = LocalExecutor(study, 2), []
    runs = [planned(name, behaviour="wait") for name in "abc"]
    sent = []

    def tick():
        if not sent and len(list(study.glob("*/waits"))) == 2:
            time.sleep(0.1)  # until they listen
            sent.append(signal.raise_signal(number))

    before = signal.getsignal(number)
    executor.run(runs, ends.append, tick)
    assert executor.stopped_by == number
    assert [ended.end for ended in ends] == ["stopped", "stopped"]
    assert [Entry(study, name).state for name in "abc"] == ["pending"] * 3
    assert signal.getsignal(number) is before


def drive_waiting(study):
    LocalExecutor(study, 1).run([planned("a", behaviour="wait")], lambda ended: None, lambda: None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_run_stops_when_its_driver_is_killed(study):
    driver = FORK.Process(target=drive_waiting, args=(study,))
    driver.start()
    wait_for(lambda: (study / "a" / "waits").exists())
    assert Entry(study, "a").state == "running"
    time.sleep(0.1)  # until it listens
    driver.kill()
    driver.join()
    wait_for(lambda: Entry(study, "a").state == "pending")
