import errno
import itertools
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdlab.errors import IntegrityError, UsageError
from kdlab.teachers import row_file
from kdlab.teachers.row_file import RowFile, gib

CARD = {"teacher": "A", "views": 9}
ROWS, WIDTH = 200, 5  # five float16 are two and a half words: the padding is tested along
RECORD_BYTES = 16  # three words and the checksum


def table(folder, card=CARD, rows=ROWS, width=WIDTH, dtype=torch.float16):
    return RowFile(folder, card, rows, width, dtype)


def values_of(rows, width=WIDTH, dtype=torch.float16):
    """Whole numbers that say which row they belong to, exact in float16 up to 2048."""
    return (rows[:, None] + torch.arange(width)).to(dtype)


def known(file):
    return file.known().nonzero().squeeze(1).tolist()


@pytest.fixture
def full(tmp_path):
    file = table(tmp_path)
    file.keep(torch.arange(ROWS), values_of(torch.arange(ROWS)))
    return file


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("width", [1, 2, 5, 100])
def test_rows_come_back_as_they_were_written_and_all_others_are_missing(tmp_path, width, dtype):
    rows = torch.tensor([7, 3, 4, 5, 199, 0])
    table(tmp_path, width=width, dtype=dtype).keep(rows, values_of(rows, width, dtype))
    file = table(tmp_path, width=width, dtype=dtype)  # another run
    asked = torch.tensor([0, 1, 7, 199, 7, 198])
    values, missing = file.recall(asked)
    assert missing.tolist() == [1, 5]
    there = torch.tensor([0, 2, 3, 4])
    assert values[there].equal(values_of(asked[there], width, dtype))
    assert values[missing].isnan().all()
    assert known(file) == [0, 3, 4, 5, 7, 199]


def test_a_row_of_zeros_that_was_written_is_there(tmp_path):
    file = table(tmp_path)
    file.keep(torch.tensor([6]), torch.zeros(1, WIDTH, dtype=torch.float16))
    assert known(file) == [6]


def test_a_later_row_replaces_an_earlier_one(full):
    full.keep(torch.tensor([6]), values_of(torch.tensor([60])))
    assert full.recall(torch.tensor([6]))[0].equal(values_of(torch.tensor([60])))


def test_what_one_process_writes_another_one_reads_at_once(tmp_path):
    reader, writer = table(tmp_path), table(tmp_path)
    assert known(reader) == []
    writer.keep(torch.tensor([8]), values_of(torch.tensor([8])))
    assert known(reader) == [8]


def test_the_card_says_what_the_rows_are(tmp_path):
    table(tmp_path)
    assert json.loads((tmp_path / "card.json").read_text()) == CARD


def test_the_file_takes_room_only_for_what_is_there(tmp_path):
    file = table(tmp_path, rows=2**22)
    assert file.size_bytes == file.path.stat().st_size == 2**22 * RECORD_BYTES
    assert file.path.stat().st_blocks * 512 < file.size_bytes / 100


# -- damage


def test_every_single_flipped_bit_of_a_row_makes_it_missing(full):
    with full.path.open("r+b", buffering=0) as file:
        for bit in range(8 * RECORD_BYTES):
            at = 42 * RECORD_BYTES + bit // 8
            byte = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << bit % 8]), at)
            assert full.recall(torch.arange(40, 44))[1].tolist() == [2], bit
            os.pwrite(file.fileno(), byte, at)
    assert len(known(full)) == ROWS


def test_a_row_that_is_half_the_old_and_half_the_new_is_missing(full):
    old = full.path.read_bytes()[:RECORD_BYTES]
    full.keep(torch.tensor([0]), values_of(torch.tensor([1000])))
    new = full.path.read_bytes()[:RECORD_BYTES]
    with full.path.open("r+b", buffering=0) as file:
        for cut in range(1, RECORD_BYTES):
            torn = new[:cut] + old[cut:]
            os.pwrite(file.fileno(), torn, 0)
            assert (0 in known(full)) == (torn in (old, new)), cut


def test_a_row_at_the_place_of_another_one_is_missing(full):
    content = bytearray(full.path.read_bytes())
    content[:RECORD_BYTES] = content[RECORD_BYTES : 2 * RECORD_BYTES]
    full.path.write_bytes(content)
    assert known(table(full.folder)) == list(range(1, ROWS))


def test_rows_of_another_table_are_missing(full):
    assert known(table(full.folder, card={**CARD, "teacher": "B"})) == []


@pytest.mark.parametrize("length", [0, 1, 100 * RECORD_BYTES + 3, ROWS * RECORD_BYTES + 5])
def test_a_file_of_another_size_keeps_the_rows_that_are_whole(full, length, caplog):
    os.truncate(full.path, length)
    file = table(full.folder)
    assert known(file) == list(range(min(length // RECORD_BYTES, ROWS)))
    assert ("computed again" in caplog.text) == (length > 0)
    file.keep(torch.arange(ROWS), values_of(torch.arange(ROWS)))
    assert len(known(file)) == ROWS


def test_random_bytes_are_missing(tmp_path):
    table(tmp_path, rows=20_000)
    noise = np.random.default_rng(0).bytes(20_000 * RECORD_BYTES)
    (tmp_path / "rows.bin").write_bytes(noise)
    assert known(table(tmp_path, rows=20_000)) == []  # 20,000 / 2^32 by chance


# -- kills and other writers


VERSIONS = (0, 300, 600)  # of a row's values, as fresh answers of a teacher differ in their rounding


def write_for_ever(folder, seed, started):
    """Write random rows, seven bytes at a time, until somebody kills us."""
    whole = os.pwrite
    os.pwrite = lambda descriptor, content, offset: whole(descriptor, content[:7], offset)
    started.set()
    file, draw = table(folder), random.Random(seed)
    while True:
        rows = torch.tensor(draw.sample(range(ROWS), 150))
        file.keep(rows, values_of(rows + draw.choice(VERSIONS)))


def test_after_fifty_kills_of_the_writer_every_row_is_right_or_missing(tmp_path):
    context, draw = multiprocessing.get_context("fork"), random.Random(5)
    torn = 0
    for kill in range(500):
        if kill >= 50 and torn > 5:
            break
        if kill % 10 == 0:  # from the making of the file on
            shutil.rmtree(tmp_path / "t", ignore_errors=True)
        started = context.Event()
        process = context.Process(target=write_for_ever, args=(tmp_path / "t", kill, started))
        process.start()
        started.wait()
        time.sleep(draw.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        file = table(tmp_path / "t")
        missing = file.recall(torch.arange(ROWS))[1]
        check_one_of(VERSIONS, file)
        records = np.fromfile(file.path, np.uint8).reshape(ROWS, RECORD_BYTES)
        torn += bool(records[missing.numpy()].any())
    assert torn > 5  # or nothing was tested; a busy machine kills many before they write


def fill(folder, version):
    file = table(folder)
    for seed in range(30):
        rows = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed + version))
        file.keep(rows, values_of(rows + version))


def test_of_two_writers_of_one_row_one_wins_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=fill, args=(tmp_path, version)) for version in VERSIONS[:2]]
    for writer in writers:
        writer.start()
    looks = 0
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "card.json").exists():
            check_one_of(VERSIONS[:2], table(tmp_path))
            looks += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert check_one_of(VERSIONS[:2], table(tmp_path)) > 0.9 * ROWS
    assert looks > 0


def check_one_of(versions, file):
    values, missing = file.recall(torch.arange(ROWS))
    rows = torch.tensor(sorted({*range(ROWS)} - {*missing.tolist()}), dtype=torch.int64)
    right = [(values[rows] == values_of(rows + version)).all(dim=1) for version in versions]
    assert torch.stack(right).any(dim=0).all()
    return len(rows)


# -- disks that refuse


def holding(folder, row, held, release):
    with table(folder).claim(row):
        held.set()
        release.wait(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that claims row 7 and lets go of it when it is told to, or dies."""
    table(tmp_path)
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=holding, args=(tmp_path, 7, held, release))
    process.start()
    assert held.wait(60)
    yield SimpleNamespace(process=process, release=release)
    process.kill()
    process.join()


@pytest.mark.parametrize("end", ["release", "death"])
def test_a_claimed_row_is_waited_for_until_its_process_lets_go_of_it_or_dies(tmp_path, holder, end):
    let_go = holder.release.set if end == "release" else holder.process.kill
    threading.Timer(0.3, let_go).start()
    began = time.monotonic()
    with table(tmp_path).claim(7):
        assert 0.2 < time.monotonic() - began < row_file.PATIENCE_S


def test_a_claim_is_given_back(tmp_path):
    file = table(tmp_path)
    with file.claim(7):
        pass
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=holding, args=(tmp_path, 7, held, release), daemon=True)
    process.start()
    assert held.wait(row_file.PATIENCE_S / 2)
    release.set()
    process.join(60)


def test_nobody_waits_for_another_row_or_for_ever(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(row_file, "PATIENCE_S", 0.2)
    began = time.monotonic()
    with table(tmp_path).claim(8):
        assert time.monotonic() - began < 0.2
    with table(tmp_path).claim(7):
        assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EPERM])
def test_without_locks_or_without_writing_nobody_waits(full, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    began = time.monotonic()
    with full.claim(7):
        assert time.monotonic() - began < row_file.PATIENCE_S / 2
    full._stop_writing(OSError(errno.EIO, "Input/output error"))
    with full.claim(7):
        pass


def test_a_file_that_cannot_be_written_is_read_and_new_rows_are_not_kept(full, monkeypatch, caplog):
    opened = os.open
    rows = torch.tensor([0])

    def read_only(path, flags, *rest, **options):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    file = table(full.folder)
    assert "cannot be written (Permission denied): new answers" in caplog.text
    assert not file.writable
    file.keep(rows, values_of(rows + 9))
    file.sync()
    assert file.recall(rows)[0].equal(values_of(rows))


def test_a_disk_that_refuses_only_when_it_is_waited_for_is_a_warning(full, monkeypatch, caplog):
    def refuse(_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    file = table(full.folder)
    monkeypatch.setattr(os, "fsync", refuse)
    file.sync()
    assert not file.writable
    assert "cannot be written any more (Disk quota exceeded)" in caplog.text


def test_a_file_that_cannot_be_read_is_an_error(full, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(IntegrityError, match=r"rows.bin cannot be read \(Permission denied\); change its mode"):
        table(full.folder)


def test_a_disk_that_fills_up_stops_the_writing_and_nothing_else(tmp_path, monkeypatch, caplog):
    file, whole = table(tmp_path), os.pwrite
    room = itertools.count(50, -1)  # bytes, taken one at a time

    def until_full(descriptor, content, offset):
        if next(room) <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, content[:1], offset)

    monkeypatch.setattr(os, "pwrite", until_full)
    with caplog.at_level(logging.WARNING):
        file.keep(torch.arange(10, 20), values_of(torch.arange(10, 20)))
        file.keep(torch.arange(30, 40), values_of(torch.arange(30, 40)))
    assert known(file) == [10, 11, 12]  # 50 bytes are three rows and the beginning of a fourth
    assert not file.writable
    assert caplog.text.count("cannot be written any more (No space left on device)") == 1


def test_too_small_a_disk_is_refused_with_both_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(UsageError, match=r"take 64.00 MiB, but the disk of .* has 3.00 MiB free; choose") as caught:
        table(tmp_path / "t", rows=2**22)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "t" / "rows.bin").exists()


def test_a_folder_that_cannot_be_made_is_an_error_with_the_fix(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot be kept in .*\(Not a directory\); choose another folder"):
        table(tmp_path / "file" / "t")


@pytest.mark.parametrize(("size", "text"), [(2**20, "1.00 MiB"), (3 * 2**29, "1.50 GiB"), (2**29, "0.50 GiB")])
def test_sizes_are_said_in_words(size, text):
    assert gib(size) == text
