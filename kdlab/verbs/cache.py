"""``python -m kdlab cache``: ask a cached teacher everything ahead of the runs."""

from __future__ import annotations

from collections.abc import Sequence

from kdlab.errors import UsageError
from kdlab.verbs.arguments import VerbParser


def parser() -> VerbParser:
    """Return the options of this verb; all others are those of `fit`."""
    parser = VerbParser(
        "cache",
        "--config FILE [--views all|used] [options of fit]",
        "Let the teacher of a config say all that its students will ask, and remember it. The config's teacher is a\n"
        "CachedTeacher. Stop it at any time: it goes on where it was. Runs may use the answers meanwhile.",
        ["--config digits/cached_teacher", "--config FILE --views used --data.data_dir DIR --trainer.accelerator gpu"],
    )
    parser.add_argument(
        "--views",
        choices=("all", "used"),
        default="all",
        help="all views of the images that are trained on, for every later run; or those that this config's seed and "
        "epochs will ask for [all]",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Fill the cache that the arguments name.

    Raises:
        UsageError: if an option is wrong, or the config's teacher is not cached.
        IntegrityError: if the teacher's weights are missing or damaged, or it is not the remembered one any more.
    """
    options, rest = parser().parse_known_args(arguments)
    if not any(argument in ("--config", "-c") or argument.startswith("--config=") for argument in rest):
        raise UsageError("kdlab cache needs a config; see: python -m kdlab cache --help")

    from kdlab.config_files import find_configs
    from kdlab.messages import set_up_messages
    from kdlab.verbs.filling import Filler

    set_up_messages()
    Filler(["fit", *find_configs(rest)], options.views)
