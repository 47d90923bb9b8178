"""What an error that is not ours becomes: an exit code and one line."""

import errno

import pytest

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
