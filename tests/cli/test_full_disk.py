"""A disk that fills up in the middle of a run: a real one, of two megabytes, where mounting is allowed."""

import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kdlab.cli import main
from kdlab.methods import Method
from kdlab.run.checkpoints import AtomicCheckpointIO
from kdlab.run.folder import RunFolder

COMMON = [
    "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1", "--name", "run",
    "--data.train_per_class", "20", "--data.batch_size", "20",
    "--trainer.callbacks+=ResumePoint", "--trainer.callbacks.every_n_steps", "2",
]  # fmt: skip
INDEPENDENT = ["fit", "--config", "digits/independent", *COMMON]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, in memory."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as place:
        yield place


@pytest.fixture
def sparse_disk(tmp_path: Path) -> Iterator[Path]:
    """One of six megabytes in a file; reading a hole takes no room on it, as it does in memory."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 * 2**20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 here")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as place:
        yield place


@contextmanager
def mounted(place: Path, *what: str) -> Iterator[Path]:
    place.mkdir()
    try:
        done = subprocess.run(["mount", *what, str(place)], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, outcome: Callable[[RunFolder], dict[str, object]]
) -> dict[str, object]:
    runs = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kdlab"])
        assert main([*INDEPENDENT, "--runs_dir", str(runs), "--profile", "false"]) == 0
    return outcome(RunFolder(runs / "digits" / "run"))


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def full_from(disk: Path, hook: str, step: int) -> None:
    """Let the disk be full from this hook on, the first time that it is called after `step` steps."""

    def now(module: Method, *_: object) -> None:
        if module.global_step == step and not (disk / "ballast").exists():
            fill(disk)

    setattr(Method, hook, now)


# what cannot be written -> from when on the disk is full, 20 steps in all
MOMENTS = {
    "last.ckpt": ("on_train_batch_end", 5),
    "best.safetensors": ("on_validation_start", 10),
    "student.safetensors": ("on_fit_end", 20),
    "result.json": ("on_test_end", 20),
}


@pytest.mark.parametrize(
    "file", ["last.ckpt", *(pytest.param(name, marks=pytest.mark.faults) for name in list(MOMENTS)[1:])]
)
def test_a_full_disk_ends_a_run_in_one_line_and_room_lets_it_go_on_exactly(
    file: str,
    disk: Path,
    in_child: Callable[..., Any],
    uninterrupted: dict[str, object],
    outcome: Callable[[RunFolder], dict[str, object]],
    tally: Callable[[str, int], None],
) -> None:
    arguments = [*INDEPENDENT, "--runs_dir", str(disk / "runs")]
    folder = RunFolder(disk / "runs" / "digits" / "run")

    ended = in_child(arguments, partial(full_from, disk, *MOMENTS[file]))

    assert ended.code == 4
    assert f"{file} cannot be written (No space left on device)" in ended.error
    assert "Free some space" in ended.error
    assert "--ckpt_path last" in ended.error
    assert not folder.result.exists()
    assert not [path for path in folder.path.rglob("*") if path.name.endswith(".part")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the one before had to be taken
        AtomicCheckpointIO().load_checkpoint(folder.last)

    (disk / "ballast").unlink()
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(folder) == uninterrupted
    tally(f"full disk (tmpfs), {file}: one line, exit code 4, resumed bit-identical", 1)


@pytest.mark.faults
def test_a_disk_that_is_full_before_the_run_is_said_with_another_folder_as_the_way_out(
    disk: Path, in_child: Callable[..., Any], tally: Callable[[str, int], None]
) -> None:
    fill(disk)
    ended = in_child([*INDEPENDENT, "--runs_dir", str(disk / "runs")])
    assert ended.code == 2
    assert "cannot be written (No space left on device); choose another folder with --runs_dir" in ended.error
    tally("full disk (tmpfs) before the run: one line, exit code 2", 1)


@pytest.mark.faults
def test_a_cache_on_a_full_disk_is_said_once_and_training_goes_on(
    sparse_disk: Path,
    tmp_path: Path,
    digits_teacher: Path,
    in_child: Callable[..., Any],
    tally: Callable[[str, int], None],
) -> None:
    disk = sparse_disk
    arguments = ["fit", "--config", "digits/cached_teacher", *COMMON, "--runs_dir", str(tmp_path / "runs"),
                 "--model.teacher.cache_dir", str(disk / "cache"),
                 "--model.teacher.teacher.checkpoint", str(digits_teacher),
                 "--model.teacher.teacher.recipe", "null"]  # fmt: skip
    assert in_child([*arguments, "--model.teacher.cache_dir", str(tmp_path / "cache"), "--name", "whole"]).code == 0

    ended = in_child(arguments, partial(full_from, disk, "on_train_start", 0))

    assert ended.code == 0
    assert ended.said.count("cannot be written any more (No space left on device)") == 1
    assert "Traceback" not in ended.said
    runs = tmp_path / "runs" / "digits"
    assert (runs / "run" / "student.safetensors").read_bytes() == (runs / "whole" / "student.safetensors").read_bytes()
    (disk / "ballast").unlink()
    again = in_child([*arguments, "--name", "again"])  # what the full disk tore is asked anew
    assert again.code == 0
    assert (runs / "again" / "student.safetensors").read_bytes() == (runs / "run" / "student.safetensors").read_bytes()
    tally("full disk (ext4), teacher's answers: said once, training went on, same student", 1)
