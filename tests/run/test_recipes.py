"""The process that trains a teacher hears what its parent is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kdlab.cli import main
from kdlab.run.recipes import _run

CONFIGS = Path(__file__).parents[2] / "configs"
CHILD = """
import os, signal, sys, time
signal.signal(signal.{0}, lambda *_: sys.exit(9))
os.kill(os.getppid(), signal.{0})
time.sleep(5)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_is_passed_on_and_the_handlers_of_before_come_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4321")
    number = getattr(signal, name)
    before = signal.signal(number, mine := lambda *_: None)
    try:
        assert _run([sys.executable, "-c", CHILD.format(name)], {}) == 9
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_a_signal_to_the_whole_group_reaches_the_child_once() -> None:
    """As of Ctrl-C, or of `timeout`: a second one would kill it in the middle of its step."""
    parent = """
import os, sys
from kdlab.run.recipes import _run
child = 'import signal, sys, time\\nheard = []\\nsignal.signal(15, lambda *_: heard.append(1))\\nprint("up", flush=True)\\n'
child += 'time.sleep(1.5)\\nsys.exit(len(heard))'
sys.exit(_run([sys.executable, '-c', child], dict(os.environ)))
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 1


def test_outside_of_slurm_its_signal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        assert _run([sys.executable, "-c", CHILD.format("SIGUSR1").replace("5", "0")], {}) == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_recipes_that_lead_back_to_themselves_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cf").mkdir()
    for name, other in (("a", "b"), ("b", "a"), ("own", "own")):
        config = yaml.safe_load((CONFIGS / "digits" / "logit_matching.yaml").read_text(encoding="utf-8"))
        network = {"class_path": "kdlab.models.DigitsConv"}
        config["model"]["init_args"] |= {
            "student": network,
            "teacher": {"class_path": "FrozenTeacher", "init_args": {
                "network": network, "checkpoint": f"runs/x/{other}/student.safetensors", "recipe": f"cf/{other}.yaml"}},
        }  # fmt: skip
        Path("cf", f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, chain in (("a", "b.yaml -> a.yaml -> b.yaml"), ("own", "own.yaml -> own.yaml")):
        assert main(["fit", "--config", f"cf/{name}.yaml"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"the teacher's recipe leads back to itself ({chain}); give the last teacher no recipe" in error
    assert not Path("runs").exists()
