"""Runs in awkward places: names with spaces and accents, other locales, folders without permission, many at once."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from kdlab.cli import main
from kdlab.data import MNIST
from kdlab.data.files import write_split
from kdlab.methods import Method
from kdlab.run.folder import RunFolder

NOBODY = 65534
SMALL = ["--trainer.max_epochs", "1", "--data.train_per_class", "10"]
INDEPENDENT = ["fit", "--config", "digits/independent", *SMALL, "--name", "run"]
AWKWARD = "Übung 1 – été (π) 実験"


# -- names and locales --------------------------------------------------------------------------------------------


def ascii_output() -> None:
    sys.stdout = open(1, "w", encoding="ascii", closefd=False)  # noqa: SIM115 (to the end of the process)


def test_what_standard_output_cannot_show_is_no_reason_to_fail(tmp_path: Path, in_child: Callable[..., Any]) -> None:
    ended = in_child([*INDEPENDENT[:-1], AWKWARD, "--runs_dir", str(tmp_path / AWKWARD)], ascii_output)
    assert ended.code == 0, ended.said
    assert r"\xdcbung" in ended.said
    assert RunFolder(tmp_path / AWKWARD / "digits" / AWKWARD).result.exists()


@pytest.mark.faults
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},  # a standard output that has no letters but A to Z
        {"LC_ALL": "C.utf8", "PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C"},
    ],
    ids=lambda locale: " ".join(locale.values()),
)
def test_a_run_in_a_folder_with_spaces_and_accents_fits_resumes_and_is_tested_in_any_locale(
    locale: dict[str, str], tmp_path: Path, tally: Callable[[str, int], None]
) -> None:
    runs = tmp_path / AWKWARD
    runs.mkdir()
    folder = RunFolder(runs / "digits" / "run")
    fit = [*INDEPENDENT, "--profile", "false", "--runs_dir"]
    code = (  # the path as an argument: Python decodes it by the locale
        "import sys; from kdlab.cli import main; runs, config = sys.argv[1:]; sys.argv = ['kdlab']\n"
        f"assert main([*{fit}, runs]) == 0\n"
        f"assert main([*{fit}, runs, '--ckpt_path', 'last']) == 0\n"  # it is tested and written once more
        "assert main(['test', '--config', config]) == 0\n"
        "assert main(['predict', '--config', config]) == 0"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    command = [sys.executable, "-c", code, str(runs), str(folder.config)]
    process = subprocess.run(command, env=environment | locale, capture_output=True, check=False, cwd=tmp_path)
    said = process.stderr.decode("utf-8", "replace")
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert folder.result.exists()
    assert (folder.path / "predictions.csv").exists()
    assert len(folder.log.read_text(encoding="utf-8").splitlines()) > 3
    tally("path with spaces and other letters, in three locales: fit, resume, test, predict", 1)


def test_nothing_is_left_in_the_systems_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, int], None]
) -> None:
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm")) if os.access("/dev/shm", os.W_OK) else tmp_path / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", str(elsewhere))  # on clusters another disk, from which nothing can be renamed
    monkeypatch.setattr(tempfile, "tempdir", None)
    try:
        assert main([*INDEPENDENT, "--runs_dir", str(tmp_path / "runs")]) == 0
        assert not list(elsewhere.iterdir())
    finally:
        shutil.rmtree(elsewhere)
    tally("TMPDIR on another file system: nothing is written there", 1)


# -- permissions --------------------------------------------------------------------------------------------------


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody() -> None:
    """For whom permissions hold; for root they do not."""
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def test_a_runs_dir_without_permission_is_one_line(
    public: Path, in_child: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, int], None]
) -> None:
    digits = load_digits()  # which nobody may read if the environment is someone's own
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: digits)
    (public / "runs").mkdir(mode=0o555)
    ended = in_child([*INDEPENDENT, "--runs_dir", str(public / "runs")], as_nobody)
    assert ended.code == 2
    assert "cannot be written (Permission denied); choose another folder with --runs_dir" in ended.error
    assert not list((public / "runs").iterdir())
    tally("runs_dir without permission: one line, exit code 2", 1)


def test_a_read_only_data_dir_is_enough_to_train(
    public: Path, in_child: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, int], None]
) -> None:
    data = public / "data"
    for part, images in (("train", 200), ("test", 50)):
        monkeypatch.setattr(MNIST, f"num_{part}_images", images)
        (data / "mnist").mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (images, 1, 28, 28), dtype=torch.uint8)
        write_split(data / "mnist" / f"{part}.safetensors", {"images": pixels, "labels": torch.arange(images) % 10})
    monkeypatch.setattr(MNIST, "sha256", {})
    (public / "runs").mkdir()
    (public / "runs").chmod(0o777)
    for path in (data / "mnist", data):
        path.chmod(0o555)
    before = sorted(data.rglob("*"))
    arguments = ["fit", "--config", "mnist/independent", *SMALL, "--data.batch_size", "20", "--data.data_dir", str(data),
                 "--runs_dir", str(public / "runs"), "--name", "run"]  # fmt: skip
    ended = in_child(arguments, as_nobody)
    assert ended.code == 0, ended.said
    assert sorted(data.rglob("*")) == before
    data.chmod(0o755)
    (data / "mnist").chmod(0o755)
    tally("read-only data_dir: trains, exit code 0", 1)


# -- many at once -------------------------------------------------------------------------------------------------


def start_and_wait_for_the_others(arguments: list[str], others: Any) -> None:
    def wait(module: Method) -> None:
        deadline = time.monotonic() + 200
        while others.value < STARTERS - 1 and time.monotonic() < deadline:
            time.sleep(0.05)

    setattr(Method, "on_train_start", wait)  # noqa: B010
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (to the end of the process)
    code = main(arguments)
    with others.get_lock():
        others.value += 1
    os._exit(code)


STARTERS = 20


@pytest.mark.faults
def test_of_twenty_starters_of_one_run_exactly_one_trains(tmp_path: Path, tally: Callable[[str, int], None]) -> None:
    fork = multiprocessing.get_context("fork")
    others, arguments = fork.Value("i", 0), [*INDEPENDENT, "--runs_dir", str(tmp_path)]
    processes = [fork.Process(target=start_and_wait_for_the_others, args=(arguments, others)) for _ in range(STARTERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)
    assert sorted(process.exitcode for process in processes if process.exitcode is not None) == [0] + [3] * (
        STARTERS - 1
    )
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["run"]
    assert RunFolder(tmp_path / "digits" / "run").result.exists()
    tally("processes that start one run at once: one trains, the others leave with exit code 3", STARTERS)
