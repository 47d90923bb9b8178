"""Read what wandb has written for its server: the record log of a run, LevelDB's format with protobuf records."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

FILE_HEADER, BLOCK, HEADER = 7, 2**15, 7
FULL, FIRST, LAST = 1, 2, 4


@dataclass
class TrackedRun:
    """What the dashboard will show."""

    run: Any = None
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)


def tracked_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/*run-*/*.wandb"))


def read_wandb(path: Path) -> TrackedRun:
    found = TrackedRun()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _items(record.run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "artifact":
            found.artifacts[record.artifact.name] = record.artifact
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def written(path: Path) -> bytes:
    """What a file holds; of a record log the records themselves as well, which its blocks may cut anywhere."""
    data = path.read_bytes()
    if path.suffix != ".wandb":
        return data
    return data + b"".join(record.SerializeToString() for record in _records(data))


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[Record]:
    """All whole records; a killed process may leave half of one."""
    at, parts = FILE_HEADER, b""
    while at + HEADER <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER:  # the rest of a block that has no room for a header is padding
            at += room
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part = data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind == 0 or len(part) < length:
            return
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
