"""What `kdlab cache` fills, the runs that follow remember: they ask nothing, and they resume bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import Tensor

from kdlab.cli import main
from kdlab.teachers import CachedTeacher, FrozenTeacher
from kdlab.teachers.row_file import RowFile
from kdlab.types import Batch, Outputs

IMAGES, VIEWS, RECORD_BYTES = 1293, 9, 24  # trained on, of 1,437; ten float16 and a checksum
MODELS = f"{Path(__file__).parents[2] / 'configs' / 'models'}/"


@pytest.fixture
def arguments(workplace: Path, tmp_path: Path) -> list[str]:
    """Of a run with a trained teacher and a cache of its own."""
    teacher = workplace / "runs" / "digits" / "teacher-seed0" / "student.safetensors"
    return [
        "--config", "digits/cached_teacher", "--model.teacher.teacher.checkpoint", str(teacher),
        "--model.teacher.teacher.recipe", "null", "--model.teacher.cache_dir", str(tmp_path / "cache"),
        "--trainer.max_epochs", "3", "--runs_dir", str(tmp_path / "runs"),
    ]  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the teacher was asked about, each time, in training steps or by the verb."""
    counts: list[int] = []
    teach, ask = FrozenTeacher.teach, CachedTeacher._ask

    def counted(teacher: FrozenTeacher, batch: Batch) -> Outputs:
        counts.append(len(batch.index))
        return teach(teacher, batch)

    def watched(*arguments: Any) -> Tensor:
        monkeypatch.setattr(FrozenTeacher, "teach", counted)
        try:
            return ask(*arguments)
        finally:
            monkeypatch.setattr(FrozenTeacher, "teach", teach)

    monkeypatch.setattr(CachedTeacher, "_ask", watched)
    return counts


def rows_in(folder: Path) -> int:
    """Rows of the only file that hold anything."""
    (file,) = folder.glob("*/rows.bin")
    return int(np.fromfile(file, np.uint8).reshape(-1, RECORD_BYTES).any(axis=1).sum())


def test_all_views_are_remembered_and_a_second_call_has_nothing_to_do(
    arguments: list[str], asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *arguments]) == 0
    total = IMAGES * VIEWS
    lines = capsys.readouterr().out.splitlines()
    assert f"0.30 MiB, 0 of {total:,} answers are there" in lines[0]
    assert f"{total:,} answers are there, 0 are missing" in lines[1]
    assert "images/s" in lines[1]
    assert (sum(asked), rows_in(tmp_path / "cache")) == (total, total)
    assert main(["cache", *arguments]) == 0
    assert f"{total:,} of {total:,} answers are there" in capsys.readouterr().out
    assert sum(asked) == total
    assert not (tmp_path / "runs").exists()


def test_a_run_on_a_complete_cache_asks_nothing(arguments: list[str], asked: list[int]) -> None:
    assert main(["cache", *arguments]) == 0
    asked.clear()
    for seed in ("0", "1"):
        assert main(["fit", *arguments, "--seed_everything", seed, "--model.temperature", "5"]) == 0
    assert asked == []


def test_the_views_that_a_run_will_use_are_known_beforehand(
    arguments: list[str], asked: list[int], tmp_path: Path
) -> None:
    assert main(["cache", *arguments, "--views", "used", "--model.teacher.ahead", "true"]) == 0  # not what ahead asks
    used = sum(asked)
    assert IMAGES * 2 < used < IMAGES * 3  # three epochs; some images show the same view twice
    asked.clear()
    assert main(["fit", *arguments]) == 0
    assert asked == []
    assert rows_in(tmp_path / "cache") == used
    assert main(["fit", *arguments, "--seed_everything", "1"]) == 0
    assert 0 < sum(asked) < used  # other views, some of them remembered
    assert main(["cache", *arguments]) == 0
    assert rows_in(tmp_path / "cache") == IMAGES * VIEWS  # all, although this config's runs lack nothing


def test_members_of_an_ensemble_use_views_of_their_own(arguments: list[str], asked: list[int], tmp_path: Path) -> None:
    teacher = arguments[arguments.index("--model.teacher.teacher.checkpoint") + 1]
    inner = {"class_path": "FrozenTeacher", "init_args": {"network": MODELS + "digits_teacher.yaml"}}
    inner["init_args"]["checkpoint"] = teacher
    cached = {"class_path": "CachedTeacher", "init_args": {"teacher": inner, "cache_dir": str(tmp_path / "cache")}}
    member = {"class_path": "LogitMatching",
              "init_args": {"student": MODELS + "digits_student.yaml", "teacher": cached}}  # fmt: skip
    data = {"augmentation": {"class_path": "RandomCropFlip", "init_args": {"padding": 1, "flip": False}}}
    config = {
        "model": {"class_path": "SubStudentEnsemble", "init_args": {"members": [member, member]}},
        "data": {"class_path": "Digits", "init_args": data}, "trainer": {"max_epochs": 2}, "profile": False,
        "runs_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    assert main(["cache", "--config", str(tmp_path / "two.yaml"), "--views", "used"]) == 0
    assert sum(asked) > IMAGES * 2.5  # of four draws of nine views each
    asked.clear()
    assert main(["fit", "--config", str(tmp_path / "two.yaml")]) == 0
    assert asked == []


def test_what_a_teacher_says_goes_on_where_it_was_stopped(
    arguments: list[str], asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teach, batches = CachedTeacher.teach, list[int]()

    def stopped(teacher: CachedTeacher, batch: Batch) -> Outputs:
        batches.append(len(batch.index))
        if len(batches) == 6:
            raise KeyboardInterrupt
        return teach(teacher, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CachedTeacher, "teach", stopped)
        assert main(["cache", *arguments]) == 130
    assert rows_in(tmp_path / "cache") == sum(asked) == 4 * 512  # the first call is the blank image of `prepare`
    assert main(["cache", *arguments]) == 0
    assert sum(asked) == IMAGES * VIEWS


# -- what is refused


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--data.mixing", "Mixup"], "data.mixing Mixup(alpha=1.0) makes endlessly many inputs of one image"),
        (["--model.teacher.max_gib", "1e-5"], "max_gib is 1e-05"),
        (["--views", "some"], "--views: invalid choice: 'some'"),
        (["--model.teacher.dtype", "int8"], "dtype"),
        (["--config", "digits/logit_matching"], "so there is nothing to remember; wrap its teacher"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], more: list[str], expected: str, the_error: Callable[[], str], tmp_path: Path
) -> None:
    if more[0] == "--config":  # of a teacher that is not cached
        teacher = arguments[arguments.index("--model.teacher.teacher.checkpoint") + 1]
        arguments, more = more, ["--model.teacher.checkpoint", teacher, "--model.teacher.recipe", "null"]
    assert main(["cache", *arguments, *more]) == 2
    assert expected in the_error()
    assert not (tmp_path / "cache").exists()


def test_a_config_is_needed(the_error: Callable[[], str]) -> None:
    assert main(["cache", "--views", "all"]) == 2
    assert "kdlab cache needs a config" in the_error()


def test_a_full_disk_ends_it_with_what_is_there(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, the_error: Callable[[], str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert main(["cache", *arguments]) == 2
    assert "rows.bin cannot be written (the reason is above); mend it and start again" in the_error()


def test_a_complete_memory_that_cannot_be_written_is_complete(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *arguments]) == 0
    capsys.readouterr()
    monkeypatch.setattr(RowFile, "writable", False)
    assert main(["cache", *arguments]) == 0
    assert ", 0 are missing" in capsys.readouterr().out


def test_a_quota_that_is_noticed_when_rows_are_flushed_ends_it_too(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, the_error: Callable[[], str]
) -> None:
    pwrite, written = os.pwrite, []

    def write(descriptor: int, *data: Any) -> int:
        written.append(descriptor)
        return pwrite(descriptor, *data)

    def refuse(descriptor: int) -> None:
        if descriptor in written:
            raise OSError(122, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        patch.setattr(os, "fsync", refuse)
        assert main(["cache", *arguments]) == 2
    assert "rows.bin cannot be written (the reason is above); mend it and start again" in the_error()


def test_the_help_is_there_without_importing_torch() -> None:
    code = "import sys; from kdlab.cli import main; main(['cache', '--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--views" in done.stdout


# -- the result of a run


def test_the_result_names_the_teacher_inside_and_how_often_it_was_asked(arguments: list[str], tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert main(["fit", *arguments, "--name", name, "--model.temperature", "2" if name == "first" else "9"]) == 0
    first, second = (
        json.loads((tmp_path / "runs" / "digits" / name / "result.json").read_text())["teacher"]
        for name in ("first", "second")
    )
    assert first["network"] == "DigitsConv"
    assert first["checkpoint"].endswith("teacher-seed0/student.safetensors")
    assert first["untrained"] is False
    assert first["images_answered"] == second["images_answered"] == 3 * IMAGES  # three epochs
    assert first["images_computed"] == rows_in(tmp_path / "cache")
    assert second["images_computed"] == 0


def test_a_run_may_be_continued_with_its_cache_at_another_place(arguments: list[str], tmp_path: Path) -> None:
    run = ["fit", *arguments, "--name", "run"]
    assert main(run) == 0
    shutil.move(tmp_path / "cache", tmp_path / "moved")
    place = ["--model.teacher.cache_dir", str(tmp_path / "moved"), "--model.teacher.place", "disk"]
    assert main([*run, "--ckpt_path", "last", *place]) == 0
