"""What is done beside training: ``profile``, ``analyze``, ``export``, ``cache``, ``study``, ``report``.

A verb is a module with `main`. It reads its options before it imports anything that takes time, so that its help is
there at once.
"""

import importlib
from collections.abc import Sequence

VERBS = ("profile", "analyze", "export", "cache", "study", "report")


def run_verb(verb: str, arguments: Sequence[str]) -> None:
    """Run one of `VERBS`.

    Raises:
        KDLabError: what the user must know.
        SystemExit: after ``--help``.
    """
    importlib.import_module(f"kdlab.verbs.{verb}").main(arguments)
