"""What travels to continue studies elsewhere."""

import importlib
import json
from pathlib import Path

import pytest

from kdlab.studies.plan import Plan, PlannedRun

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def carrying(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("carrying")


@pytest.fixture
def study(tmp_path):
    """Two teachers, one of which somebody still learns from; a student that is done, one that is not."""
    folder = tmp_path / "runs" / "studies" / "s"
    runs = [PlannedRun(name, "teacher", name, {}, 0, (), ()) for name in ("old", "needed")]
    runs += [
        PlannedRun("done", "student", "a", {}, 0, (), ("old",)),
        PlannedRun("open", "student", "a", {}, 1, (), ("needed",)),
    ]
    for run in runs:
        (folder / run.id / "checkpoints").mkdir(parents=True)
        for name in ("config.yaml", "metrics.csv", "student.safetensors", "checkpoints/last.ckpt", "owner.json"):
            (folder / run.id / name).write_text(f"{name} of {run.id}")
        if run.id != "open":
            (folder / run.id / "result.json").write_text("{}")
    Plan("s", "", ("m",), (), tuple(runs)).write(folder)
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_results_needed_teachers_and_resume_points_travel(carrying, study, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "carry"
    assert carrying.pack(runs, [study], out) == []
    assert files(out) == ["carry.tar.0"]
    assert carrying.unpack(out, tmp_path / "elsewhere") == 14
    small = [f"{run}/{name}" for run in ("done", "needed", "old", "open") for name in ("config.yaml", "metrics.csv")]
    small += [f"{run}/result.json" for run in ("done", "needed", "old")]
    expected = [*small, "study.json", "needed/student.safetensors", "open/checkpoints/last.ckpt"]
    assert files(tmp_path / "elsewhere" / "studies" / "s") == sorted(expected)
    assert carrying.unpack(out, tmp_path / "elsewhere") == 0


def test_pieces_are_small_and_what_has_no_room_is_told(carrying, study, tmp_path, monkeypatch):
    runs, out = tmp_path / "runs", tmp_path / "carry"
    monkeypatch.setattr(carrying, "PIECE_BYTES", 10_000)
    (study / "needed" / "student.safetensors").write_bytes(bytes(range(200)) * 150)  # 30,000 bytes
    (study / "open" / "checkpoints" / "last.ckpt").write_bytes(b"x" * 40_000)
    (out / "carry.tar.9").parent.mkdir()
    (out / "carry.tar.9").write_text("of before")
    assert carrying.pack(runs, [study], out) == [study / "open" / "checkpoints" / "last.ckpt"]
    pieces = sorted(out.iterdir())
    assert 3 < len(pieces) <= 8
    assert all(piece.stat().st_size <= 10_000 for piece in pieces)
    assert carrying.unpack(out, tmp_path / "elsewhere") == 13
    there = tmp_path / "elsewhere" / "studies" / "s" / "needed" / "student.safetensors"
    assert there.read_bytes() == bytes(range(200)) * 150


def test_what_is_here_stays(carrying, study, tmp_path):
    carrying.pack(tmp_path / "runs", [study], tmp_path / "carry")
    (study / "open" / "checkpoints" / "last.ckpt").write_text("newer")
    (study / "done" / "result.json").unlink()
    assert carrying.unpack(tmp_path / "carry", tmp_path / "runs") == 1
    assert (study / "open" / "checkpoints" / "last.ckpt").read_text() == "newer"
    assert json.loads((study / "done" / "result.json").read_text()) == {}


def test_a_folder_without_pieces_is_told(carrying, tmp_path):
    with pytest.raises(SystemExit, match=r"holds no carry\.tar\.0"):
        carrying.unpack(tmp_path, tmp_path / "runs")
