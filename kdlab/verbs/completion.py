"""``python -m kdlab completion``: a script that lets a shell complete verbs, options and names of configs."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from kdlab.errors import UsageError
from kdlab.verbs.arguments import VerbParser

SHELLS = ("bash", "zsh")
CONFIG = dict.fromkeys(SHELLS, "_kdlab_config")  # what completes the name of a config
PREAMBLE = {
    "bash": '_kdlab_config() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "_kdlab_config() {{ compadd {names}; _files; }}",
}


def parser() -> VerbParser:
    """Return the options of this verb."""
    parser = VerbParser(
        "completion",
        "SHELL",
        f"Print a script that lets a shell ({', '.join(SHELLS)}) complete what follows the command kdlab: verbs, main\n"
        "options, names of configs. Needs: pip install 'kdlab[completion]'",
        ["bash > ~/.local/share/bash-completion/completions/kdlab", "zsh > ~/.zfunc/_kdlab"],
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print the script.

    Raises:
        UsageError: if shtab is missing.
    """
    shell = parser().parse_args(arguments).shell
    if importlib.util.find_spec("shtab") is None:
        raise UsageError("completion needs the package shtab; pip install 'kdlab[completion]'")
    import shtab

    from kdlab.verbs.list import configs

    names = " ".join(name for name, _ in configs())
    preamble: Any = {shell: PREAMBLE[shell].format(names=names)}  # shtab's annotation lacks the mapping
    print(shtab.complete(command(), shell=shell, preamble=preamble))


def command() -> argparse.ArgumentParser:
    """The whole command line, as far as it is completed: LightningCLI's hundreds of options are left to ``--help``."""
    from kdlab.main_options import MAIN_OPTIONS
    from kdlab.verbs import TRAINING_VERBS, VERBS

    whole = argparse.ArgumentParser("kdlab")
    verbs = whole.add_subparsers(dest="verb")
    for verb in TRAINING_VERBS:
        training = verbs.add_parser(verb, help=verb)  # shtab passes over those without a help
        for option in MAIN_OPTIONS:
            action: Any = training.add_argument(f"--{option}")
            if option == "config":
                action.complete = CONFIG  # which is how shtab is told
    for verb in VERBS:
        own = importlib.import_module(f"kdlab.verbs.{verb}").parser()
        verbs.add_parser(verb, help=verb, parents=[own], add_help=False)
    return whole
