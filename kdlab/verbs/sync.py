"""``python -m kdlab sync``: send runs to W&B that were tracked offline, or not sent to their end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kdlab.errors import BusyError, IntegrityError, UsageError
from kdlab.run.folder import RunFolder
from kdlab.run.wandb_server import Server, is_sent
from kdlab.verbs.arguments import VerbParser


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "sync",
        "RUN [RUN ...]",
        "Send runs to W&B that were tracked offline (--config run/wandb). Needs a key: wandb login, or WANDB_API_KEY.\n"
        "What was sent before is not sent again; the parts of a run that was killed and continued become one run.",
        ["runs/digits/logit_matching-seed0", "runs/studies/digits_alpha/*/"],
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Send the runs that the arguments name.

    Raises:
        UsageError: if a folder holds no tracked run, or there is no key that the server knows, or no server.
        BusyError: if a run is not over yet; what it has written until now would be taken for all of it.
        IntegrityError: if something could not be sent.
    """
    options = parser().parse_args(arguments)
    files = [file for run in options.runs for file in tracked_files(run)]
    unfinished = [run for run in options.runs if RunFolder(run).in_use]
    if unfinished:
        raise BusyError(f"{unfinished[0]} belongs to a running process; send it when the run is over. Nothing was sent")
    unsent = [file for file in files if not is_sent(file)]
    if not unsent:
        print("nothing to send: W&B has these runs already")
        return

    from kdlab.messages import set_up_messages

    set_up_messages()
    refusal = Server.find().refusal()
    if refusal is not None:
        raise UsageError(f"nothing was sent: {refusal}")
    # without --include-online wandb leaves out what was tracked online, of which a part may have been sent
    subprocess.run([sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, unsent)], check=False)
    left = [file for file in unsent if not is_sent(file)]
    if left:
        raise IntegrityError(
            f"{len(left)} of {len(unsent)} files were not sent, first {left[0]}; what wandb says is above. Try again"
        )
    print(f"{len(unsent)} of {len(unsent)} files were sent")


def tracked_files(run: Path) -> list[Path]:
    """What wandb wrote about a run, oldest first; a run that was continued has several files.

    Raises:
        UsageError: if there is nothing.
    """
    files = sorted(run.glob("wandb/*run-*/*.wandb"), key=lambda file: file.parent.name.removeprefix("offline-"))
    if not run.is_dir():
        raise UsageError(f"there is no folder {run}; name that of a run, such as runs/digits/logit_matching-seed0")
    if not files:
        raise UsageError(
            f"{run} holds no run that W&B tracked; start one with: python -m kdlab fit --config FILE --config run/wandb"
        )
    return files
