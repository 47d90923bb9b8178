"""What an error that is not ours becomes: an exit code and one line."""

import errno
import importlib
import sys

import pytest

from kdlab import blame
from kdlab.atomic import atomic_write
from kdlab.messages import explained


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_with_the_file_and_what_to_do(tmp_path, number):
    target = tmp_path / "result.json"
    target.write_text("before")

    def write():
        with atomic_write(target) as part:
            part.write_text("half")
            raise OSError(number, "No room")  # as a write says it: without a name

    with pytest.raises(OSError, match=r"result\.json") as caught:
        write()

    code, message = explained(caught.value)

    assert code == 4
    assert message.startswith(f"{target} cannot be written (No room); what was there before is whole. Free some space")
    assert "--ckpt_path last" in message
    assert target.read_text() == "before"


def test_an_error_of_something_else_in_the_block_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "a.txt"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")


def test_what_was_added_to_an_error_is_part_of_its_line():
    from kdlab.errors import NumericalError

    error = NumericalError("the loss is nan")
    error.add_note("Look at x")
    assert explained(error) == (5, "the loss is nan. Look at x")


@pytest.mark.parametrize("own", [(), ("mine",)])
def test_an_error_that_nobody_expected_is_a_bug_of_kdlab_or_of_what_the_user_brought(own, tmp_path, monkeypatch):
    for name in blame.own_modules():  # the tests' own
        monkeypatch.delitem(sys.modules, name)
    for name in own:
        (tmp_path / f"{name}.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.import_module(name)
    whose = "kdlab, or of your own code (mine); please report it if it is ours" if own else "kdlab; please report it"
    assert explained(RuntimeError("odd")) == (1, f"RuntimeError: odd. This is a bug of {whose}")
