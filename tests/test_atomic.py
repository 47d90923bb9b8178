import os

import pytest

from kdlab.atomic import atomic_write, write_text
from kdlab.errors import UsageError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_and_nothing_else_is_left(tmp_path):
    write_text(tmp_path / "a.txt", "grüße\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "grüße\n"
    assert names(tmp_path) == ["a.txt"]


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_the_target_is_the_old_version_until_the_block_ends(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with atomic_write(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
        assert part.parent == tmp_path  # another file system could not be renamed from
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_version_alone(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")

    def fail():
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("ne")
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_version(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("fsync") or fsync(handle))
    monkeypatch.setattr(type(tmp_path), "replace", lambda path, target: done.append("rename") or replace(path, target))
    write_text(tmp_path / "a.txt", "x")
    assert done == ["fsync", "rename", "fsync"]  # the file, its name, the folder that holds the name


def test_a_full_disk_is_found_before_the_rename(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_process_that_dies_in_the_block_leaves_the_old_version(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    child = os.fork()
    if child == 0:
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("ne")
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_pipe_or_device_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=r"pipe is a device or a pipe, which a file would replace; give the name"):
        write_text(pipe, "x")
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
