"""Whose code an error comes from: a config names classes, and they may be the user's own or another library's."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PACKAGE = str(Path(__file__).parent) + os.sep
# of Python itself and of what was installed; a folder that a .pth file adds to the path is the user's
INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def users_mistake(error: BaseException) -> str | None:
    """What the user's own code has raised, with file and line; None where kdlab's code was the last to call.

    Libraries are passed over: they do as they are told. So does the caller of a class of the user's that calls back
    into kdlab with a mistake of kdlab's.
    """
    for part in _chain(error):
        line = None
        for frame, number in _frames(part):
            file = frame.f_code.co_filename
            if file.startswith(PACKAGE):
                line = None
            elif not file.startswith((*INSTALLED, "<")):
                line = f"{file}, line {number}, in {frame.f_code.co_name}"
        if line is not None:
            return f"{type(part).__name__}: {' '.join(str(part).split())} ({line})"
    return None


def own_modules() -> list[str]:
    """The imported modules that are neither kdlab's nor installed: the user's, which a config names."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    own = {name for name, file in files.items() if file and not file.startswith((PACKAGE, *INSTALLED, "_"))}
    return sorted(own - {"__main__", "__mp_main__"})


def constructed(error: BaseException, classes: set[type]) -> type | None:
    """The innermost of `classes` whose constructor an error comes from."""
    found = None
    for part in _chain(error):
        for frame, _ in _frames(part):
            own = type(frame.f_locals.get("self"))
            if frame.f_code.co_name == "__init__" and own in classes:
                found = own
    return found


def functions_in(error: BaseException, file: str) -> list[str]:
    """The functions of files with this name that an error came through, outermost first."""
    return [frame.f_code.co_name for frame, _ in _frames(error) if Path(frame.f_code.co_filename).name == file]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from: jsonargparse wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
