"""The options of a verb: no abbreviations, one-line errors, a help with examples."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import NoReturn

from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError


class VerbParser(argparse.ArgumentParser):
    """argparse that raises a `UsageError` instead of printing its usage.

    Args:
        verb: the word behind ``python -m kdlab``.
        usage: what follows it, positional arguments first: an option with several values would swallow them.
        description: what the verb does, in one sentence.
        examples: commands, without ``python -m kdlab``.
    """

    def __init__(self, verb: str, usage: str, description: str, examples: list[str]) -> None:
        shown = "\n".join(f"  python -m kdlab {verb} {example}" for example in examples)
        super().__init__(
            prog=f"kdlab {verb}",
            usage=f"python -m kdlab {verb} {usage}",
            description=description,
            epilog=f"examples:\n{shown}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a `UsageError` with the option, what is wrong with it, and where to look."""
        text = re.sub(r"^argument ", "", message)
        if match := re.match(r"unrecognized arguments: (--[^\s=]+)", text):
            known = [option for option in self._option_string_actions if option.startswith("--")]
            raise UsageError(f"{self.prog} has no option {match[1]}{did_you_mean(match[1], known)}")
        raise UsageError(f"{text}; see: python -m {self.prog} --help")


def check_file(path: Path) -> None:
    """See that a file can be written, before minutes are spent on what shall stand in it.

    Raises:
        UsageError: if it cannot.
    """
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; name a file in it, for example {path / 'profile.txt'}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        what = "may not be written to" if above.is_dir() else "is no folder"
        raise UsageError(f"--out {path} cannot be written: {above} {what}; choose another file") from error


def image_shape(text: str) -> tuple[int, int, int]:
    """Read ``3,32,32`` as (C, H, W)."""
    try:
        channels, height, width = (int(part) for part in re.split("[,x]", text))
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no image shape; give channels,height,width, for example 3,32,32")
    return channels, height, width


def positive_int(text: str) -> int:
    """Read a whole number of 1 or more."""
    number = int(text) if re.fullmatch(r"\d+", text) else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of 1 or more")
    return number


def positive_float(text: str) -> float:
    """Read a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number
