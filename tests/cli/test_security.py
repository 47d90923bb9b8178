"""No file that a command reads can run code: a pickle that touches a canary, wherever a file may lie.

All with the variable that makes PyTorch trust every file. Configs name classes, so they are programs: SECURITY.md.
"""

import contextlib
import hashlib
import os
import pickle
import shutil
import subprocess
import tarfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from kdlab.cli import main

TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_test_batches", "1"]


class Gadget:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.canary), "w")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that must not appear; PyTorch is told to trust everything."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


@pytest.fixture(params=["zip", "pickle"])
def evil(request: pytest.FixtureRequest, canary: Path, tmp_path: Path) -> Path:
    """A file with the gadget, as PyTorch writes it or as plain pickle."""
    path = tmp_path / "evil.pt"
    content = {"state_dict": {"a": torch.ones(1)}, "extra": Gadget(canary)}
    if request.param == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["extra"], protocol=2))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps; copy it before you change it."""
    runs = tmp_path_factory.mktemp("finished")
    assert main(["fit", "--config", "digits/independent", "--runs_dir", str(runs), "--name", "r", *TINY]) == 0
    return runs / "digits" / "r"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "digits" / "r"))


def refused(arguments: list[str], code: int, canary: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused in one line; return the line."""
    assert main(arguments) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines[-1].startswith("kdlab: error: ")
    assert not any("Traceback" in line for line in lines)
    assert not canary.exists()
    return lines[-1]


def test_the_gadget_does_run_where_nobody_is_careful(evil: Path, canary: Path) -> None:
    content = evil.read_bytes()
    torch.load(evil, weights_only=False) if content.startswith(b"PK") else pickle.loads(content)
    assert canary.exists()


def test_code_in_a_resume_point_is_not_run(
    evil: Path, run: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    shutil.copy(evil, last)
    # whoever can replace the file can replace the digests beside it
    (last.parent / "digests.txt").write_text(f"{hashlib.sha256(evil.read_bytes()).hexdigest()} last.ckpt\n")
    arguments = [
        "fit",
        "--config",
        str(run / "config.yaml"),
        "--ckpt_path",
        str(last),
        "--runs_dir",
        str(run.parents[1]),
    ]
    assert "holds more than tensors" in refused(arguments, 4, canary, capsys)


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_code_in_the_weights_that_are_tested_is_not_run(
    verb: str, evil: Path, run: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([verb, "--config", str(run / "config.yaml"), "--ckpt_path", str(evil)], 4, canary, capsys)


@pytest.mark.parametrize("verb", [["analyze"], ["export", "--format", "safetensors"], ["profile"]])
@pytest.mark.parametrize("place", ["student.safetensors", "checkpoints/evil.ckpt"])
def test_code_in_the_weights_of_a_run_is_not_run(
    verb: list[str], place: str, evil: Path, run: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(evil, run / place)
    target = run if place.startswith("student") else run / place
    refused([verb[0], str(target), *verb[1:]], 4, canary, capsys)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors", ""])
def test_code_in_a_teacher_is_not_run(
    suffix: str, evil: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copy(evil, tmp_path / f"teacher{suffix}")
    teacher = ["--model.teacher.recipe", "null", "--model.teacher.checkpoint", str(checkpoint)]
    refused(["fit", "--config", "digits/logit_matching", *teacher], 4, canary, capsys)
    assert not (tmp_path / "runs").exists()


def test_code_in_remembered_answers_is_not_run(evil: Path, tmp_path: Path, canary: Path) -> None:
    cached = [
        "--config",
        "digits/logit_matching",
        "--model.teacher",
        "CachedTeacher",
        "--model.teacher.teacher",
        "FrozenTeacher",
    ]
    cached += ["--model.teacher.teacher.network", "kdlab.models.DigitsConv", "--seed_everything", "1"]
    arguments = ["fit", *cached, *TINY, "--runs_dir", str(tmp_path / "runs")]
    assert main(arguments) == 0
    (rows,) = tmp_path.glob("cache/*/rows.bin")
    size = rows.stat().st_size
    rows.write_bytes(evil.read_bytes().ljust(size, b"\0"))
    (rows.parent / "card.json").write_bytes(evil.read_bytes())
    assert main(arguments) == 0  # what is no row is missing, and asked again
    assert not canary.exists()


def test_code_in_the_file_of_a_split_is_not_run(
    evil: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        shutil.copy(evil, folder / f"{name}.safetensors")
    refused(["fit", "--config", "mnist/independent", "--data.data_dir", str(tmp_path / "data")], 4, canary, capsys)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No download succeeds."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network in this test")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("urllib.request.urlretrieve", refuse)


@pytest.mark.usefixtures("no_network")
def test_the_published_pickles_of_cifar_are_opened_only_if_they_are_those(
    evil: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name in ("train", "test", "meta"):
        shutil.copy(evil, folder / name)
    arguments = ["fit", "--config", "cifar100/independent", "--data.data_dir", str(tmp_path / "data")]
    assert "download failed" in refused(arguments, 4, canary, capsys)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("member", ["../canary", "{canary}", "cifar-100-python/train"])
def test_an_archive_that_is_not_the_published_one_is_not_unpacked(
    member: str, evil: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with tarfile.open(data / "cifar-100-python.tar.gz", "w:gz") as archive:
        archive.add(evil, arcname=member.format(canary=canary))
    arguments = ["fit", "--config", "cifar100/independent", "--data.data_dir", str(data)]
    refused(arguments, 4, canary, capsys)
    assert [path.name for path in data.iterdir()] == ["cifar-100-python.tar.gz"]


def test_torchvision_unpacks_nothing_outside_its_folder(tmp_path: Path) -> None:
    # the second wall, behind the digests
    from torchvision.datasets.utils import extract_archive

    (tmp_path / "harmless").write_text("")
    for member in ("../escaped", str(tmp_path / "escaped")):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "harmless", arcname=member)
        with contextlib.suppress(tarfile.OutsideDestinationError):  # a root is cut off from a name, ".." is refused
            extract_archive(str(tmp_path / "a.tar.gz"), str(tmp_path / "inside"))
        assert not (tmp_path / "escaped").exists()


def test_code_in_the_files_of_a_study_is_not_run(
    evil: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "runs" / "studies" / "s"
    (study / "a").mkdir(parents=True)
    shutil.copy(evil, study / "plan.json")
    refused(["report", str(study)], 2, canary, capsys)
    shutil.copy(evil, study / "a" / "result.json")
    (study / "plan.json").unlink()
    refused(["report", str(study)], 4, canary, capsys)


TAGS = ("!!python/object/apply:builtins.open [{canary}, w]", "!!python/object/new:builtins.open [{canary}, w]",
        "!!python/name:os.system", "!!python/module:os", "!python {canary}")  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("verb", ["fit", "profile", "study", "analyze"])
def test_a_tag_in_a_config_is_not_obeyed(
    verb: str, tag: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"name: 1\nmodel:\n  init_args:\n    alpha: {tag.format(canary=canary)}\n")
    arguments = {"fit": ["fit", "--config", str(config)], "analyze": ["analyze", str(tmp_path)]}
    (tmp_path / "student.safetensors").write_bytes(b"")
    line = refused(arguments.get(verb, [verb, str(config)]), 2, canary, capsys)
    assert "config.yaml, line 4: the tag !" in line


def test_a_value_on_the_command_line_is_no_python(canary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = TAGS[0].format(canary=canary)
    refused(["fit", "--config", "digits/logit_matching", "--model.alpha", value], 2, canary, capsys)


def test_keys_of_the_environment_are_in_no_file_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"WANDB_API_KEY": "0123456789abcdef" * 3, "HF_TOKEN": "hf_secret", "AWS_SECRET_ACCESS_KEY": "aws_secret"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "remote", "add", "origin", "https://user:git_secret@example.org/x.git"], check=True)
    assert main(["fit", "--config", "digits/independent", "--config", "run/wandb", "--runs_dir", "runs", *TINY]) == 0
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    contents = b"".join(path.read_bytes() for path in files)
    for secret in (*secrets.values(), "git_secret"):
        assert secret.encode() not in contents
    assert os.environ["HF_TOKEN"] == "hf_secret"  # the variables were there all the time
