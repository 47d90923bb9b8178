"""The wait for other processes can be ended, and says for whom it is."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from kdlab.run import rendezvous
from kdlab.run.rendezvous import SIGNALS, wait_openly


class Job:
    """A strategy whose other processes come when they are let in."""

    def __init__(self, external=True):
        self.cluster_environment = self
        self.creates_processes_externally = external
        self.come = threading.Event()
        self.handlers = []

    def setup_environment(self):
        self.handlers = [signal.getsignal(number) for number in SIGNALS]
        self.come.wait(0.2)


def test_signals_end_the_wait_and_go_to_their_handlers_again_behind_it():
    job, before = Job(), [signal.getsignal(number) for number in SIGNALS]
    wait_openly(job, world_size=2)
    job.setup_environment()
    assert job.handlers == [signal.SIG_DFL] * 2
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(("external", "world_size"), [(False, 2), (True, 1)])
def test_nobody_else_is_touched(external, world_size):
    job, before = Job(external), [signal.getsignal(number) for number in SIGNALS]
    wait_openly(job, world_size)
    job.setup_environment()
    assert job.handlers == before


@pytest.mark.parametrize("patience_s", [0.01, 10.0])
def test_a_wait_that_takes_long_is_said(patience_s, monkeypatch, caplog):
    monkeypatch.setattr(rendezvous, "PATIENCE_S", patience_s)
    monkeypatch.setenv("MASTER_ADDR", "node7")
    monkeypatch.setenv("MASTER_PORT", "29500")
    job = Job()
    wait_openly(job, world_size=4)
    job.setup_environment()
    said = "waiting for all 4 processes at node7:29500"
    assert [record.message for record in caplog.records] == ([said] if patience_s < 1 else [])


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_whose_partners_never_come_is_ended_by_a_signal(number, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    alone = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "kdlab", "fit", "--config", "digits/independent", "--config", "run/ddp"]
    process = subprocess.Popen(
        [*command, "--runs_dir", str(tmp_path)], env={**os.environ, **alone}, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = f"waiting for all 2 processes at 127.0.0.1:{port}".encode()
    assert any(said in line for line in process.stderr)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(30) == -number
    assert time.monotonic() - began < 10
    assert not list(tmp_path.iterdir())
