"""The errors a user can cause or meet, each with the exit code the command line ends with.

A message names the value, what was expected and the fix, in one line, and stands alone: the command line
prints ``kdlab: error: <message>`` and no traceback. Everything that is not a `KDLabError` is a bug of ours.
"""

import re


class KDLabError(Exception):
    """Base of all errors that end a command with one line instead of a traceback."""

    exit_code = 1


class UsageError(KDLabError, ValueError):
    """A wrong option, config value or combination of them (exit code 2)."""

    exit_code = 2


class BusyError(KDLabError):
    """The run folder belongs to another live process (exit code 3)."""

    exit_code = 3


class IntegrityError(KDLabError):
    """A data file, checkpoint or teacher is missing, damaged, foreign or no longer what it was (exit code 4).

    So is a tracked run at W&B of which a part is missing.
    """

    exit_code = 4


class NumericalError(KDLabError, ArithmeticError):
    """A loss or an answer is no finite number, or an exported network differs from its original (exit code 5)."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says of its error, or the name of its class where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_line(said: object) -> str:
    """What an error or another package says, on one line, without user and password of the addresses in it."""
    return re.sub(r"//[^/\s]*@", "//", " ".join(str(said).split())) or type(said).__name__
