"""What is done beside training, each a word behind ``python -m kdlab``.

A verb is a module with `main`. It reads its options before it imports anything that takes time, so that its help is
there at once.
"""

import importlib
from collections.abc import Sequence

TRAINING_VERBS = ("fit", "validate", "test", "predict")  # LightningCLI's
VERBS = ("profile", "analyze", "export", "cache", "study", "report", "sync", "dashboard", "list", "completion")


def run_verb(verb: str, arguments: Sequence[str]) -> None:
    """Run one of `VERBS`.

    Raises:
        KDLabError: what the user must know.
        SystemExit: after ``--help``.
    """
    importlib.import_module(f"kdlab.verbs.{verb}").main(arguments)
