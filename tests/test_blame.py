"""Whose code an error comes from, by the file that raised it."""

import os
import sysconfig

import pytest

from kdlab import blame


def raised_in(file: str) -> str | None:
    """Whose mistake an error is that code in `file` raises."""
    with pytest.raises(ValueError, match="odd") as caught:
        exec(compile("raise ValueError('odd')", file, "exec"))  # noqa: S102
    return blame.users_mistake(caught.value.with_traceback(caught.tb.tb_next))


@pytest.mark.parametrize("folder", [blame.PACKAGE, sysconfig.get_path("stdlib") + os.sep])
def test_a_file_beside_a_package_is_not_of_it(folder: str) -> None:
    beside = f"{folder[:-1]}_mine.py"
    assert raised_in(beside) == f"ValueError: odd ({beside}, line 1, in <module>)"
    assert raised_in(f"{folder}models.py") is None
