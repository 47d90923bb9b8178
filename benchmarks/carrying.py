"""What must travel to continue studies on another machine: results, weights of teachers, resume points.

A tar file cut into pieces. What is first in the list is packed first, and what does not fit any more stays behind.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdlab.studies.ledger import Entry
from kdlab.studies.plan import Plan

PIECE_BYTES, PIECES = 15 * 2**20, 8
NAME = "carry.tar"
SMALL = ("result.json", "failed.json", "config.yaml", "metrics.csv", "log.txt", "output.txt")


def pack(runs: Path, studies: Sequence[Path], out: Path) -> list[Path]:
    """Write the pieces, and return the files that had no room.

    Args:
        runs: folder of all runs; names in the tar file start there.
        studies: folders of studies.
        out: gets ``carry.tar.0`` and so on; those of before are removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob(f"{NAME}*"):
        old.unlink()
    whole, left = out / NAME, []
    room = PIECES * PIECE_BYTES - tarfile.RECORDSIZE
    with tarfile.open(whole, "w") as tar:
        for file in travelling(studies):
            size = file.stat().st_size + 4 * tarfile.BLOCKSIZE  # header, padding and end
            if tar.offset + size > room:
                left.append(file)
            else:
                tar.add(file, str(file.relative_to(runs)))
    with whole.open("rb") as content:
        for number in range(PIECES):
            if piece := content.read(PIECE_BYTES):
                (out / f"{NAME}.{number}").write_bytes(piece)
    whole.unlink()
    return left


def travelling(studies: Sequence[Path]) -> Iterator[Path]:
    """Yield what a study needs to go on: small files, teachers that somebody still learns from, resume points."""
    plans = {study: Plan.read(study) for study in studies if (study / "study.json").is_file()}
    states = {(study, run.id): Entry(study, run.id).state for study, plan in plans.items() for run in plan.runs}
    for study, plan in plans.items():
        yield study / "study.json"
        for run in plan.runs:
            yield from (path for name in SMALL if (path := study / run.id / name).is_file())
    for study, plan in plans.items():
        needed = {need for run in plan.runs if states[study, run.id] != "done" for need in run.needs}
        yield from (path for need in sorted(needed) if (path := study / need / "student.safetensors").is_file())
    for role in ("teacher", "student"):
        for study, plan in plans.items():
            unfinished = [run.id for run in plan.runs if run.role == role and states[study, run.id] != "done"]
            for name in dict.fromkeys(unfinished):
                yield from (path for path in [study / name / "checkpoints" / "last.ckpt"] if path.is_file())


def unpack(folder: Path, runs: Path) -> int:
    """Unpack the pieces in `folder`, and return the number of files; what is there already stays as it is."""
    pieces = sorted(folder.glob(f"{NAME}.*"), key=lambda path: int(path.suffix[1:]))
    if not pieces:
        raise SystemExit(f"{folder} holds no {NAME}.0")
    runs.mkdir(parents=True, exist_ok=True)
    whole = runs / f".{NAME}"
    with whole.open("wb") as file:
        for piece in pieces:
            with piece.open("rb") as content:
                shutil.copyfileobj(content, file)
    with tarfile.open(whole) as tar:
        new = [member for member in tar.getmembers() if not (runs / member.name).exists()]
        tar.extractall(runs, new, filter="data")
    whole.unlink()
    return len(new)
