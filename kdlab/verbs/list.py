"""``python -m kdlab list``: the parts that a config can name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from itertools import takewhile
from textwrap import shorten

from kdlab.config_files import config_folder
from kdlab.kinds import KINDS, Kind, classes
from kdlab.verbs.arguments import VerbParser

LISTED = (*KINDS, "configs")
PARTS = ("models", "teachers", "trainers", "sweeps")  # folders of configs that others include, or that are W&B's
LONGEST = 120  # characters of a sentence


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "list",
        "[KIND]",
        "Show what a config can name, each in a line: methods, losses, teachers, models, data, profilers, configs.",
        ["losses", "configs"],
    )
    parser.add_argument("kind", metavar="KIND", nargs="?", choices=LISTED, help=f"one of {', '.join(LISTED)} [all]")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print the parts of one kind, or of each."""
    options = parser().parse_args(arguments)
    for kind in [options.kind] if options.kind else LISTED:
        rows = configs() if kind == "configs" else choices(KINDS[kind])
        width = max(len(name) for name, _ in rows)
        print(f"{kind}:")
        for name, text in rows:
            print(f"  {name:{width}}  {text}")


def choices(kind: Kind) -> list[tuple[str, str]]:
    """Return the classes of a kind, as a config names them, with the first line of their docstring; no base classes."""
    prefix = "" if kind.short_names else f"{kind.module}."
    return [
        (f"{prefix}{cls.__name__}", (inspect.getdoc(cls) or "").partition("\n")[0])
        for cls in classes(kind)
        if not _is_base(cls, kind)
    ]


def _is_base(cls: type, kind: Kind) -> bool:
    """Whether a method of the class is still to be written, or it is the base of others and does nothing itself."""
    missing = any(getattr(getattr(cls, name), "__isabstractmethod__", False) for name in dir(cls))
    return missing or cls.__name__ in kind.bases


def configs() -> list[tuple[str, str]]:
    """Return the configs of runs, overlays and studies, as ``--config`` takes them, with their first sentence."""
    folder = config_folder()
    rows = []
    for path in sorted(folder.glob("*/*.yaml")):
        if path.parent.name not in PARTS:
            lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
            sentence = re.split(r"(?<=[a-z0-9)])\. |:? {3,}", " ".join(line.removeprefix("# ") for line in lines))[0]
            rows.append(
                (path.relative_to(folder).with_suffix("").as_posix(), shorten(sentence, LONGEST, placeholder=" ..."))
            )
    return rows
