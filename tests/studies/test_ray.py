"""The executor of a Ray cluster, on a real one of two nodes: with a stand-in for training, and with training.

Drivers and cluster live in forked processes: what Ray leaves in a process would not survive the forks of other tests.
"""

import importlib.util
import json
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from kdlab.cli import main
from kdlab.errors import UsageError
from kdlab.studies import cluster
from kdlab.studies.cluster import RayExecutor, connected, runs_on
from kdlab.studies.ledger import Entry
from kdlab.studies.plan import PlannedRun

FORK = multiprocessing.get_context("fork")
PATIENCE_S = 250
RAY = importlib.util.find_spec("ray") is not None  # not imported here: it would read its variables now
NO_RAY = "Ray is not installed: pip install 'kdlab[cluster]'"

# stands in for the process of a run: claims it, writes a line, and does what --do says
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
from kdlab.studies.ledger import Entry
from kdlab.studies.process import _stop_without
task, parent = json.loads(sys.argv[1]), int(sys.argv[2])
study, run_id, arguments, threads = task["study"], task["run_id"], task["arguments"], task["threads"]
entry, do = Entry(Path(study), run_id), arguments[arguments.index("--do") + 1]
with entry.claim() as ours:
    if not ours or entry.folder.result.exists():
        sys.exit(3)
    entry.folder.path.mkdir(exist_ok=True)
    with Path(study, "calls").open("a") as file:
        file.write(json.dumps({"name": run_id, "parent": parent, "threads": threads, "arguments": arguments}) + "\\n")
    if do == "fail":
        entry.output.write_text("kdlab: error: the loss is nan")
        sys.exit(5)
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do in ("wait", "linger"):
        told = []
        def stop(*_):
            told.append(1)
            if do == "wait" or len(told) == 2:
                sys.exit(143)
        signal.signal(signal.SIGTERM, stop)
        _stop_without(parent)
        time.sleep(200)
    if do == "orphan" and not (entry.folder.path / "orphan").exists():
        (entry.folder.path / "orphan").touch()
        os.kill(parent, signal.SIGKILL)
        sys.exit(1)
    entry.folder.student.touch()
    entry.folder.result.write_text("{}")
"""


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """Address of a cluster with one processor on each of two nodes, and the process of the second one."""
    if not RAY:
        pytest.skip(NO_RAY)
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex()  # none in the home
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=serve, args=(theirs,))
    process.start()
    assert ours.poll(PATIENCE_S)
    yield ours.recv()
    ours.send("end")
    process.join(30)
    process.kill()
    del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]


def serve(pipe):
    from ray.cluster_utils import Cluster

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script, where clusters are started
    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    second = nodes.add_node(**size)
    pipe.send((nodes.address, second.all_processes["raylet"][0].process.pid))
    pipe.recv()
    nodes.shutdown()


def drive(function, *arguments):
    """What a function returns in a process of its own."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send(function(*arguments)))
    process.start()
    answer = ours.recv() if ours.poll(PATIENCE_S) else "no answer"
    process.join(30)
    process.kill()
    return answer


def planned(name, *needs, role="student", do="work"):
    weights = [argument for need in needs for argument in ("--checkpoint", f"@{need}")]
    return PlannedRun(name, role, name, {}, 0, ("--do", do, *weights), needs)


@pytest.fixture
def study(tmp_path, monkeypatch):
    words = cluster.command
    monkeypatch.setattr(cluster, "command", lambda *task: ["-c", STAND_IN, words(*task)[-1]])
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    return folder


def work_through(address, study, runs, options, signals=()):
    """Id -> what became of it and why; the signals come one after the other, when two runs wait."""
    ends, coming = [], list(signals)

    def tick():
        if coming and len(calls(study)) == 2:
            time.sleep(1)  # until they listen
            signal.raise_signal(coming.pop(0))

    with connected(address):
        executor = RayExecutor(study, **options)
        executor.run(runs, ends.append, tick)
    assert len({ended.run.id for ended in ends}) == len(ends)
    return executor.stopped_by, {ended.run.id: (ended.end, ended.reason) for ended in ends}


def calls(study):
    path = study / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.faults
def test_runs_end_as_they_do_on_one_machine(two_nodes, study):
    runs = [
        planned("s", "t"), planned("t", role="teacher"), planned("free"), planned("f", do="fail"), planned("b", "f"),
        planned("dead", do="die"), planned("orphan", do="orphan"),
    ]  # fmt: skip
    _, ends = drive(work_through, two_nodes[0], study, runs, {"options": ["--more", "1"]})
    assert ends == {
        "t": ("done", ""),
        "s": ("done", ""),
        "free": ("done", ""),
        "f": ("failed", "exit code 5: the loss is nan"),
        "b": ("blocked", "it needs f, seed 0, which is not done"),
        "dead": ("failed", "exit code 137: no output"),
        "orphan": ("done", ""),  # Ray gave it to another worker
    }
    made = calls(study)
    assert sorted(call["name"] for call in made) == ["dead", "f", "free", "orphan", "orphan", "s", "t"]
    student = next(call for call in made if call["name"] == "s")
    weights = str(study / "t" / "student.safetensors")
    assert student["arguments"] == ["fit", "--do", "work", "--checkpoint", weights, "--more", "1"]
    assert student["threads"] == 1


@pytest.mark.faults
@pytest.mark.parametrize(
    ("do", "signals"),
    [("wait", [signal.SIGINT]), ("wait", [signal.SIGTERM]), ("linger", [signal.SIGTERM, signal.SIGTERM])],
)
def test_signals_stop_all_and_fail_none(two_nodes, study, do, signals):
    runs = [planned(name, do=do) for name in "abc"]
    stopped_by, ends = drive(work_through, two_nodes[0], study, runs, {"cpus": 1.0}, signals)
    assert stopped_by == signals[-1]
    assert {end for end, _ in ends.values()} == {"stopped"}
    deadline = time.monotonic() + 20
    while (states := [Entry(study, name).state for name in "abc"]) != ["pending"] * 3:
        assert time.monotonic() < deadline, states
        time.sleep(0.1)


def refused(address, study, options):
    try:
        work_through(address, study, [], options)
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_what_no_node_can_hold_is_refused(two_nodes, study):
    assert drive(refused, two_nodes[0], study, {"cpus": 2.0, "gpus": 0.5}) == (
        "no node of the cluster has 2 CPU(s) and 0.5 GPU(s) for a run; set --cpus_per_run and --gpus_per_run"
    )


def without_token(address, study, home):
    del os.environ["RAY_AUTH_TOKEN"]
    os.environ["HOME"] = str(home)  # where Ray would look for one
    return refused(address, study, {})


@pytest.mark.slow
def test_a_cluster_lets_nobody_in_without_its_token(two_nodes, study, tmp_path):
    said = drive(without_token, two_nodes[0], study, tmp_path)
    assert said == (
        f"--ray_address {two_nodes[0]}: Ray cannot connect: Token authentication is enabled but no authentication "
        "token was found; if the cluster has a token, set RAY_AUTH_MODE=token and give it in ~/.ray/auth_token or "
        "RAY_AUTH_TOKEN"
    )


def on_this_machine(study, home):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(home)
    return refused("local", study, {"cpus": 1e4})


@pytest.mark.faults
@pytest.mark.skipif(not RAY, reason=NO_RAY)
def test_a_cluster_of_this_machine_is_started_with_a_token_and_ended(study, tmp_path):
    said = drive(on_this_machine, study, tmp_path)
    assert said.startswith("no node of the cluster has 10000 CPU(s) and 0 GPU(s) for a run")
    assert (tmp_path / ".ray" / "auth_token").read_text()


def test_an_address_where_nobody_answers_is_told_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UsageError, match=rf"--ray_address {address}: nobody answers there \(.*\); start a cluster"):
        cluster._check_address(address)
    with pytest.raises(UsageError, match="--ray_address is here; give HOST:PORT of a cluster, auto, or local"):
        cluster._check_address("here")


def test_a_node_without_the_disk_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"does not see .*/studies/s; all nodes must share the disk with the runs"):
        cluster._run(str(tmp_path), "studies/s", [])


def test_how_many_runs_a_node_holds():
    assert runs_on({"CPU": 8.0, "GPU": 2.0}, 1.0, 0.25) == 8
    assert runs_on({"CPU": 16.0, "GPU": 2.0}, 1.0, 0.25) == 8
    assert runs_on({"CPU": 3.0}, 2.0, 0.0) == 1
    assert runs_on({"CPU": 3.0}, 1.0, 1.0) == 0


STUDY = {
    "name": "tiny",
    "seeds": [0],
    "set": {"trainer.max_epochs": 20, "profile": False},
    "teachers": {"wide": {"base": "digits/teacher"}},
    "variants": {
        "plain": {"base": "digits/independent"},
        "kd": {"base": "digits/logit_matching", "set": {"model.teacher.checkpoint": "@wide"}},
    },
    "comparisons": [{"of": "kd", "against": "plain"}],
}


def train(arguments):
    sys.argv = ["kdlab"]
    return main(arguments)


def trained(runs):
    return sorted((runs / "studies" / "tiny").glob("*/output.txt"))


def processes(parent):
    """A process and all that it started, parents first: no worker lives to tell of its run's death."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *(process for child in found for process in processes(int(child)))]


def kill_in_training(runs, raylet):
    """A node with all on it, when a run there has come to its second epoch."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        there = processes(raylet)
        for path in trained(runs):
            owner = path.with_name("owner.json")
            if "epoch 2/" in path.read_text() and owner.exists() and json.loads(owner.read_text())["pid"] in there:
                for process in there:
                    os.kill(process, signal.SIGKILL)
                return
        time.sleep(0.02)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="what a node runs is found in Linux' /proc")
def test_a_node_that_dies_midway_costs_no_run_and_doubles_none(two_nodes, tmp_path, monkeypatch, capfd):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    monkeypatch.setattr("kdlab.studies.local.cores", lambda: 1)  # as many threads as Ray's runs have
    here, there = tmp_path / "here", tmp_path / "there"
    assert drive(train, ["study", str(path), "--runs_dir", str(here)]) == 0

    address, second = two_nodes
    killer = threading.Thread(target=kill_in_training, args=(there, second))
    options = ["--executor", "ray", "--ray_address", address, "--runs_dir", str(there)]
    killer.start()
    capfd.readouterr()
    assert drive(train, ["study", str(path), *options]) == 0
    killer.join()

    said = [file.read_text() for file in trained(there)]
    assert sorted(text.count("kdlab: run folder") for text in said) == [1, 1, 2]  # one began on the node that died
    assert [text.count("result, weights and config are in") for text in said] == [1, 1, 1]
    assert sorted(text.count("epoch 20/20") for text in said) == [1, 1, 1]
    files = [folder / "studies" / "tiny" / "report" / "summary.json" for folder in (here, there)]
    assert files[0].read_text() == files[1].read_text()
    assert [file.parent.name for file in trained(here)] == [file.parent.name for file in trained(there)]
    told = capfd.readouterr()
    assert [line.split("]")[0] for line in told.err.splitlines()[:3]] == ["[1/3", "[2/3", "[3/3"]
    assert "raylet" not in told.out + told.err  # what Ray has to say is in its own files


def test_without_ray_the_way_to_install_it_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["study", "studies/digits_alpha", "--executor", "ray"]) == 2
    assert (
        capsys.readouterr().err == "kdlab: error: --executor ray needs the package ray; pip install 'kdlab[cluster]'\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus_per_run", "0.5"], "--gpus_per_run is for Ray; add --executor ray, or leave it out"),
        (["--ray_address", "auto"], "--ray_address is for Ray; add --executor ray, or leave it out"),
        (["--gpus_per_run", "1.5"], "1.5 is no share of GPUs; give 0, a part of one as 0.25, or 1, 2, 3"),
        (["--cpus_per_run", "0"], "0 is no number above 0"),
        (["--executor", "slurm"], "invalid choice: 'slurm'"),
    ],
)
def test_options_that_make_no_sense(options, message, capsys):
    assert main(["study", "studies/digits_alpha", *options]) == 2
    assert message in capsys.readouterr().err
