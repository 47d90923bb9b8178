"""What the command line says: errors as one line with an exit code, and kdlab's messages without Lightning's."""

import errno
import logging
import os
import sys
import traceback
import warnings

from kdlab.blame import own_modules, users_mistake
from kdlab.errors import IntegrityError, KDLabError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, the largest file


def report(error: Exception) -> int:
    """Print what the user must know and return the exit code."""
    if os.environ.get("KDLAB_DEBUG"):
        traceback.print_exception(error)
    code, message = explained(error)
    if code == 1 and not os.environ.get("KDLAB_DEBUG"):
        traceback.print_exception(error)
    print(f"kdlab: error: {message}", file=sys.stderr)
    return code


def explained(error: Exception) -> tuple[int, str]:
    """Exit code and one line for an error, whoever raised it."""
    ours = our_error(error)
    if ours is not None:
        said = [str(ours), *getattr(ours, "__notes__", ())]  # where the error has been dealt with, something is added
        return ours.exit_code, " ".join(". ".join(said).split())
    if _is_misconfiguration(error):
        return UsageError.exit_code, " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in FULL and error.filename is not None:
        return IntegrityError.exit_code, (
            f"{error.filename} cannot be written ({error.strerror}); what was there before is whole. Free some space "
            "and run the command again (a training goes on with --ckpt_path last)"
        )
    if isinstance(error, PermissionError):
        return UsageError.exit_code, f"no permission for {error.filename}; choose another folder or change its mode"
    if isinstance(error, OSError) and error.filename is not None:
        return UsageError.exit_code, f"{error.filename}: {error.strerror}; choose another file or folder"
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        first = str(error).strip().partition("\n")[0] or "MemoryError"
        return UsageError.exit_code, f"too little memory ({first}); lower data.batch_size, or take a smaller network"
    own = users_mistake(error)
    if own is not None:
        return UsageError.exit_code, f"{own}; mend it there (KDLAB_DEBUG=1 shows how it was called)"
    others = ", ".join(own_modules())
    whose = (
        f"kdlab, or of your own code ({others}); please report it if it is ours"
        if others
        else "kdlab; please report it"
    )
    return 1, f"{type(error).__name__}: {' '.join(str(error).split())}. This is a bug of {whose}"


def report_exit(end: SystemExit) -> int:
    """Return the exit code of what ended the program, and say so where that was code of the user's."""
    own = None if isinstance(end.__context__, KeyboardInterrupt) else users_mistake(end)
    if own is None:
        return exit_code(end)
    print(f"kdlab: error: {own} ended the program; mend it there", file=sys.stderr)
    return UsageError.exit_code


def exit_code(error: BaseException) -> int:
    """The code that the command line ends with because of an error, or of an exit from inside."""
    if isinstance(error, SystemExit):
        if isinstance(error.__context__, KeyboardInterrupt):  # which Lightning turns into exit(1)
            return 130
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return explained(error)[0] if isinstance(error, Exception) else 130


def _is_misconfiguration(error: Exception) -> bool:
    """Whether Lightning refuses its settings. It has been imported then; it takes seconds, so not by us."""
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return lightning is not None and isinstance(error, lightning.MisconfigurationException)


def our_error(error: BaseException | None) -> KDLabError | None:
    """The first error of ours among an error and its causes: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, KDLabError):
        error = error.__cause__ or error.__context__
    return error


def set_up_messages() -> None:
    """Let kdlab's own messages through, and quiet what Lightning says to advertise or to itself.

    Call it after what needs Lightning has been imported: its import turns its own messages on.
    """
    logger = logging.getLogger("kdlab")
    handler = logging.StreamHandler()  # anew for each call: it keeps the stderr of its making
    handler.setFormatter(logging.Formatter("kdlab: %(message)s"))
    logger.handlers = [handler]
    ranks = sys.modules.get("lightning.fabric.utilities.rank_zero")  # without Lightning there is one process
    rank = 0 if ranks is None else getattr(ranks.rank_zero_only, "rank", 0)
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*LightningCLI's args parameter is intended.*",  # `main` always gives them
        ".*does not have many workers.*",  # there are none: the data are in memory
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # our metrics are already global
        ".*in eval mode at the start of training.*",  # the teacher; that is its place
        ".*is smaller than the logging interval.*",
        ".*The number of training batches.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
