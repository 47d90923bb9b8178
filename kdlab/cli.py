"""The command line: ``python -m kdlab VERB ...``.

`main` takes the arguments and returns the exit code, so tests call it in-process.
"""

import io
import sys
from collections.abc import Sequence

from kdlab.allocation import keep_freed_memory
from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError
from kdlab.messages import report, report_exit, set_up_messages
from kdlab.verbs import TRAINING_VERBS, VERBS, run_verb


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        args: the command line without the program's name; ``sys.argv[1:]`` by default.

    Returns:
        0 when all went well, 2 for a wrong option or config, 3 for a run folder in use, 4 for damaged or missing
        files, 5 when a loss stopped being a number or an exported network does not answer as the original, 6 when runs
        of a study failed, 7 when another process of the job was lost, 130 after Ctrl-C, 138 after SLURM's signal to
        requeue, 143 after SIGTERM, 1 for a bug of kdlab (with a traceback).
    """
    arguments = list(sys.argv[1:] if args is None else args)
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that cannot be shown is no reason to fail
    try:
        check_order(arguments)
        if arguments and arguments[0] in VERBS:
            run_verb(arguments[0], arguments[1:])
            return 0
        if arguments and not arguments[0].startswith("-") and arguments[0] not in TRAINING_VERBS:
            raise UsageError(f"there is no verb {arguments[0]}{did_you_mean(arguments[0], [*TRAINING_VERBS, *VERBS])}")
        return _train(arguments)
    except SystemExit as end:
        return report_exit(end)
    except KeyboardInterrupt:
        print("kdlab: interrupted; files of before are as they were", file=sys.stderr)
        return 130
    except Exception as error:
        return report(error)


def check_order(arguments: list[str]) -> None:
    """Refuse an option before the verb, and a config without its option."""
    if len(arguments) > 1 and arguments[0] in TRAINING_VERBS and not arguments[1].startswith("-"):
        raise UsageError(f"{arguments[1]} is no option; for a config: kdlab {arguments[0]} --config {arguments[1]}")
    verb = next((argument for argument in arguments if argument in (*TRAINING_VERBS, *VERBS)), None)
    if verb is not None and arguments[0].startswith("-"):
        raise UsageError(f"{arguments[0]} comes before {verb}, but the verb comes first: python -m kdlab {verb} ...")


def _train(arguments: list[str]) -> int:
    # imports Lightning, which takes seconds: a verb that does not train has its help without them
    from kdlab.run.stopping import leaving_on_signals
    from kdlab.training_cli import KDLabCLI

    set_up_messages()
    with leaving_on_signals():
        KDLabCLI(_prepared(arguments))
    return 0


def _prepared(arguments: list[str]) -> list[str]:
    """Find the configs that are meant by name, and remember whether the whole help is wanted."""
    from kdlab.config_files import find_configs
    from kdlab.parser import KDLabParser

    KDLabParser.full_help = "--help_all" in arguments
    return find_configs(["--help" if argument == "--help_all" else argument for argument in arguments])
