"""Whose code an error comes from: a config names classes, and they may be the user's own or another library's."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PACKAGE = str(Path(__file__).parent)
# of Python itself and of what was installed; a folder that a .pth file adds to the path is the user's
INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def users_line(error: BaseException) -> str | None:
    """File and line of the user's own code that an error comes from; None where kdlab's code was the last to call.

    Libraries are passed over: they do as they are told. So does the caller of a class of the user's that calls back
    into kdlab with a mistake of kdlab's.
    """
    line = None
    for frame, number in _frames(error):
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            line = None
        elif not file.startswith((*INSTALLED, "<")):
            line = f"{file}, line {number}, in {frame.f_code.co_name}"
    return line


def constructed(error: BaseException, classes: set[type]) -> type | None:
    """The innermost of `classes` whose constructor an error comes from."""
    found = None
    for frame, _ in _frames(error):
        own = type(frame.f_locals.get("self"))
        if frame.f_code.co_name == "__init__" and own in classes:
            found = own
    return found


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
