"""The command line's parser: no abbreviations, one-line errors, and a help that fits on a screen."""

import difflib
import re
from argparse import SUPPRESS
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from kdlab.blame import users_mistake
from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError
from kdlab.main_options import MAIN_OPTIONS
from kdlab.parser_messages import brief

HELP_HEAD = """usage: python -m kdlab {verb} --config FILE [--config OVERLAY ...] [--KEY VALUE ...]

{description}

Any key of a config can be set on the command line; a slot that holds a class takes its arguments directly:
  --model.temperature 2   --model.student.widths [6,12,12]   --data.batch_size 64   --trainer.max_epochs 30

What a class accepts:   --model.help LogitMatching   --data.help CIFAR100   --model.student.help kdlab.models.ResNet20
What will be run:       --print_config               All {count} options: --help_all
"""


class KDLabParser(LightningArgumentParser):
    """LightningCLI's parser, made strict and brief."""

    full_help = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False  # otherwise --trainer.max_epoch 3 is silently taken for max_epochs
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UsageError` with the one line that matters."""
        if not self.exit_on_error:  # a nested parser: its caller adds the key to the message
            super().error(message, ex)
        if message.startswith("unrecognized arguments: --"):
            option = message.split()[2].split("=")[0]
            raise UsageError(f"there is no option {option}{did_you_mean(option, self._like(option))}")
        if match := re.match(r"argument (?:-c/)?(--\S+): expected one argument$", message):
            raise UsageError(f"{match[1]} has no value; give one (one that begins with - after an =, as in --KEY=-1)")
        own = None if ex is None else users_mistake(ex)
        said = re.sub(r"^(model|data)(\.init_args)?\.seed:", "seed_everything:", brief(message))  # linked to it
        raise UsageError(f"{own}; mend it there" if own else said) from ex

    def _like(self, option: str) -> list[str]:
        """The options that may have been meant: those of this parser and its verbs, or the same of another slot."""
        parsers = [self, *(self._subcommands_action.choices.values() if self._subcommands_action else ())]
        options = [known for parser in parsers for known in parser._option_string_actions]
        slot, dot, key = option.partition(".")  # model.temperature is no option of the parser: its class decides
        slots = difflib.get_close_matches(slot, {known.partition(".")[0] for known in options}, n=1)
        return [f"{slots[0]}.{key}"] if dot and slots and slots[0] != slot else options

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the main options with their meaning, or everything after ``--help_all``."""
        actions = [action for action in self._actions if action.dest in MAIN_OPTIONS]
        if KDLabParser.full_help or not actions:
            return str(super().format_help(*args, **kwargs))
        verb = (self.prog or "").split()[-1]
        shown = sorted(actions, key=lambda action: MAIN_OPTIONS.index(action.dest))
        lines = [HELP_HEAD.format(verb=verb, description=self.description, count=len(self._actions))]
        for action in shown:
            default = self.get_defaults().get(action.dest) if action.dest not in ("config", "print_config") else None
            text = "" if action.help in (None, SUPPRESS) else " ".join(str(action.help).split()).replace("%%", "%")
            text = re.sub(r"\s*\((required|type|default)[^)]*\)$", "", text)
            note = "" if default in (None, "") or not isinstance(default, (str, int, float)) else f" [{default}]"
            lines.append(f"  --{action.dest:<28} {_first_sentence(text)}{note}")
        return "\n".join(lines) + "\n"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;")
