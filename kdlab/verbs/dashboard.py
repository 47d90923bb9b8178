"""``python -m kdlab dashboard``: a W&B workspace for a project, as a file and as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from kdlab.errors import UsageError
from kdlab.extras import require
from kdlab.verbs.arguments import VerbParser, check_file

NAME = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
LONGEST = 128  # characters


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "dashboard",
        "[ENTITY/]PROJECT [--push] [--out FILE]",
        "Write a W&B workspace for a project as JSON: accuracy by method, cost against accuracy, losses by term.\n"
        "That needs no account. --push saves it at W&B as well. Needs: pip install 'kdlab[dashboard]'",
        ["kdlab --out workspace.json", "my-team/kdlab --push"],
    )
    parser.add_argument("project", metavar="PROJECT", help="as WandbLogger has it; kdlab where nothing was said")
    parser.add_argument("--push", action="store_true", help="save it at W&B; needs a key and ENTITY/PROJECT")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file [PROJECT-workspace.json]")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Write the workspace of the project that the arguments name, and push it if they say so.

    Raises:
        UsageError: if wandb-workspaces is missing, the file cannot be written, or W&B does not take it.
    """
    options = parser().parse_args(arguments)
    if not NAME.fullmatch(options.project) or len(options.project) > LONGEST:
        raise UsageError(f"{options.project[:LONGEST]!r} is no project of W&B; give PROJECT or ENTITY/PROJECT, of "
                         "letters, digits and - _ .")  # fmt: skip
    entity, _, project = options.project.rpartition("/")
    if options.push and not entity:
        raise UsageError(f"--push must know whose project {project} is; give ENTITY/{project}")
    out = options.out or Path(f"{project}-workspace.json")
    check_file(out)
    require("wandb_workspaces", "dashboard", "dashboard")

    from kdlab.atomic import write_text
    from kdlab.messages import set_up_messages
    from kdlab.run.wandb_server import Server
    from kdlab.verbs.workspace import make_workspace, specification

    set_up_messages()
    workspace = make_workspace(entity, project)
    write_text(out, json.dumps(specification(workspace), indent=1) + "\n")
    print(f"workspace of {options.project} in {out}")
    if not options.push:
        return
    refusal = Server.find().refusal()
    if refusal is not None:
        raise UsageError(f"nothing was pushed: {refusal}")
    try:
        workspace.save()
    except Exception as error:  # of wandb's server, in whatever words
        raise UsageError(f"W&B does not take the workspace: {' '.join(str(error).split())}") from error
    print(f"saved: {workspace.url}")
