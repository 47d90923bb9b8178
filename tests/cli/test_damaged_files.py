"""Files of weights that are damaged, foreign or of another network: exit code 4 and one line, wherever they are named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdlab.cli import main
from kdlab.models import MNISTPerceptron
from kdlab.weights import save_weights

TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_test_batches", "1"]
WRONG = {
    "empty": "is damaged or no",
    "cut off": "is damaged or no",
    "one byte changed": "is damaged",
    "YAML": "is damaged or no",
    "picture": "is damaged or no",
    "without tensors": "holds no tensors by name",
    "another architecture": "does not fit",
    "another number of classes": "check width, depth and num_classes",
    "folder": "is a folder",
    "missing": "does not exist",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps; copy it before you change it."""
    runs = tmp_path_factory.mktemp("finished")
    assert main(["fit", "--config", "digits/independent", "--runs_dir", str(runs), "--name", "r", *TINY]) == 0
    return runs / "digits" / "r"


def put(what: str, path: Path, whole: bytes) -> Path:
    """Place something wrong where weights are expected; return its path."""
    if what == "without tensors":
        path = path.with_suffix(".ckpt")
        torch.save({"epoch": 3}, path)
    elif what == "another architecture":
        save_weights(torch.nn.Sequential(torch.nn.Linear(2, 2)), path, {})
    elif what == "another number of classes":
        save_weights(MNISTPerceptron(num_classes=7, image_size=8), path, {})
    elif what == "folder":
        path.mkdir()
    elif what != "missing":
        changed = bytearray(whole)
        changed[-100] ^= 1
        contents = {"empty": b"", "cut off": whole[: len(whole) // 2], "one byte changed": bytes(changed),
                    "YAML": b"model: 3\n", "picture": b"\x89PNG\r\n\x1a\n" + bytes(100)}  # fmt: skip
        path.write_bytes(contents[what])
    return path


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The message, which must be the last line and no traceback."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("kdlab: error: ")] == lines[-1:]
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_wrong_weights_are_not_tested(
    verb: str, what: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(what, tmp_path / "w.safetensors", (finished / "student.safetensors").read_bytes())
    before = sorted(finished.rglob("*"))
    assert main([verb, "--config", str(finished / "config.yaml"), "--ckpt_path", str(path)]) == 4
    line = the_line(capsys)
    assert WRONG[what] in line
    assert str(path) in line
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize("what", WRONG)
def test_nobody_learns_from_a_wrong_teacher(
    what: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(what, tmp_path / "w.safetensors", (finished / "student.safetensors").read_bytes())
    network = "{class_path: kdlab.models.MNISTPerceptron, init_args: {image_size: 8, dropout: 0}}"
    teacher = [
        "--model.teacher.recipe",
        "null",
        "--model.teacher.checkpoint",
        str(path),
        "--model.teacher.network",
        network,
    ]
    runs = tmp_path / "runs"
    assert main(["fit", "--config", "digits/logit_matching", *teacher, "--runs_dir", str(runs)]) == 4
    line = the_line(capsys)
    assert WRONG[what] in line
    assert str(path) in line
    assert not runs.exists()


@pytest.mark.parametrize(("path", "words"), [(".", "which is no file; name one"), ("/dev/zero", "which is no file")])
def test_a_recipe_does_not_train_into_what_is_no_file(
    path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", "digits/logit_matching", "--model.teacher.checkpoint", path]) == 4
    assert f"the teacher's checkpoint is {path}, {words}" in the_line(capsys)


@pytest.mark.parametrize("what", [what for what in WRONG if what not in ("folder", "missing", "without tensors")])
@pytest.mark.parametrize("verb", [["analyze"], ["export", "--format", "safetensors"], ["profile"]])
def test_a_run_with_wrong_weights_is_not_looked_at(
    verb: list[str], what: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "runs" / "digits" / "r"))
    student = run / "student.safetensors"
    put(what, student, student.read_bytes())
    before = sorted(run.rglob("*"))
    assert main([verb[0], str(run), *verb[1:]]) == 4
    assert WRONG[what] in the_line(capsys)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("what", ["empty", "cut off", "one byte changed", "YAML", "picture"])
def test_a_wrong_resume_point_is_not_continued(
    what: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "runs" / "digits" / "r"))
    last = run / "checkpoints" / "last.ckpt"
    put(what, last, last.read_bytes())
    arguments = [
        "fit",
        "--config",
        str(run / "config.yaml"),
        "--runs_dir",
        str(tmp_path / "runs"),
        "--ckpt_path",
        str(last),
    ]
    assert main(arguments) == 4
    assert "is damaged: its SHA-256 is not the one that was written" in the_line(capsys)
    (last.parent / "digests.txt").unlink()
    if what != "one byte changed":  # of which only the digest knows
        assert main(arguments) == 4
        assert "is damaged or no checkpoint" in the_line(capsys)


def changed(*path: str | int, to: object) -> Callable[[Any], object]:
    """A resume point with another value in one place."""

    def change(checkpoint: Any) -> object:
        part = checkpoint
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = to
        return checkpoint

    return change


FOREIGN = {
    "a list": (lambda c: [c], "it holds a list"),
    "nothing": (lambda c: {}, "its pytorch-lightning_version is a NoneType"),
    "weights alone": (lambda c: {"state_dict": c["state_dict"]}, "its pytorch-lightning_version is a NoneType"),
    "an epoch that is a word": (changed("epoch", to="x"), "its epoch is 'x'"),
    "steps below none": (changed("global_step", to=-5), "its global_step is -5"),
    "no loops": (changed("loops", to=None), "its loops is a NoneType"),
    "no training loop": (changed("loops", to={}), "its loops.fit_loop has no epoch_progress"),
    "a training loop without counters": (changed("loops", "fit_loop", to={}), "its loops.fit_loop has no epoch_progress"),
    "a training loop of another kind": (changed("loops", "fit_loop", to={"a": 1}), "its loops.fit_loop has no"),
    "a counter below none": (
        changed("loops", "fit_loop", "epoch_progress", "current", "ready", to=-1),
        "its loops.fit_loop.epoch_progress.current.ready is -1",
    ),
    "weights of another network": (changed("state_dict", to={}), "the checkpoint is of another model: "),
    "weights that are no numbers": (lambda c: no_numbers(c["state_dict"]) or c, "is not finite"),
    "no optimizer": (changed("optimizer_states", to=[]), "it has no state of the optimizer"),
    "an optimizer that is none": (changed("optimizer_states", to=[3]), "AttributeError: "),
    "callbacks that are none": (changed("callbacks", to=3), "its callbacks is 3"),
    "a recorder without a clock": (changed("callbacks", "RunRecorder", to={"a": 1}), "KeyError: 'world_size'"),
}  # fmt: skip


def no_numbers(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values())).fill_(float("nan"))


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_resume_point_is_not_continued(
    what: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without digests.txt, as after a copy of the checkpoint alone: only its content can say that it is none."""
    run = Path(shutil.copytree(finished, tmp_path / "runs" / "digits" / "r"))
    last = run / "checkpoints" / "last.ckpt"
    (last.parent / "digests.txt").unlink()
    change, expected = FOREIGN[what]
    torch.save(change(torch.load(last, weights_only=True)), last)
    arguments = ["fit", "--config", str(run / "config.yaml"), "--runs_dir", str(tmp_path / "runs"), *TINY]
    before = {path: path.read_bytes() for path in (run / "student.safetensors", run / "result.json", last)}
    assert main([*arguments, "--ckpt_path", str(last)]) == 4
    line = the_line(capsys)
    assert expected in line
    if "another network" not in what:
        assert f"checkpoint {last} is no resume point of this run (" in line
        assert line.endswith("leave that out to start a new run")
    assert {path: path.read_bytes() for path in before} == before
