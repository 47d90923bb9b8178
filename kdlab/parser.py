"""The command line's parser: no abbreviations, one-line errors, and a help that fits on a screen."""

import ast
import difflib
import importlib
import re
from argparse import SUPPRESS
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse._parameter_resolvers import get_signature_parameters  # it is in no public module of 4.53
from lightning.pytorch.cli import LightningArgumentParser

from kdlab.blame import users_mistake
from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError

PACKAGED_CONFIGS = Path(__file__).parent / "configs"  # in an installed wheel
CHECKOUT_CONFIGS = Path(__file__).parents[1] / "configs"  # in a checkout

# what `--help` shows; `--help_all` shows everything
MAIN_OPTIONS = (
    "config", "print_config", "seed_everything", "experiment", "name", "runs_dir", "profile", "ckpt_path",
    "model", "data",
    "trainer.max_epochs", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision",
    "trainer.callbacks", "trainer.logger", "trainer.log_every_n_steps",
    "trainer.limit_train_batches", "trainer.fast_dev_run",
)  # fmt: skip

SECTIONS = ("model", "data", "trainer", "seed_everything", "profile", "runs_dir", "experiment", "name", "ckpt_path")

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


def find_config(name: str) -> str:
    """Return the path of the config that `name` means.

    A file is taken as it is. Otherwise the configs of the package are searched, with or without ``configs/`` before
    and ``.yaml`` behind the name, so that ``digits/logit_matching`` works from any folder.

    Raises:
        UsageError: if there is no such file; it lists close names.
    """
    if Path(name).is_file():
        return name
    folder = CHECKOUT_CONFIGS if CHECKOUT_CONFIGS.is_dir() else PACKAGED_CONFIGS
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if (folder / f"{wanted}.yaml").is_file():
        return str(folder / f"{wanted}.yaml")
    known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    raise UsageError(f"there is no config {name}{did_you_mean(wanted, known)}")


# lines in which jsonargparse tells how it tried, not what is wrong
_NOISE = re.compile(
    r"^(Does not validate against any of the Union subtypes|Subtypes: |Errors:$|Given value type: |"
    r"Type \S.* expects a function or a callable class:$|Expected a <class '(NoneType|collections.abc.Iterable)'>|"
    r"Expected a path but |"
    r"Expected a dot import path string:|Subclass types expect one of:$|a class path \(str\)$|a dict with(out)? |$)"
)
_KEY = re.compile(r'^Parser key "([^"]+)":?\s*(.*)$')
_CLASS = re.compile(r"^Problem with given class_path '([^']+)':?\s*(.*)$")
_UNKNOWN_OPTION = re.compile(r"^(?:Option|Key) '([^']+)' is not (?:accepted|expected)$")
_GIVEN = re.compile(r"(?:^|\. )(?:Given|Got) value:(?: (?!Namespace)(.*?))?(?=\. Got value:|$)")
_OF_ANOTHER_KIND = re.compile(r"( is no \w+$|^expected a |^\S* ?is no class|^Tensor has no )")
LONGEST = 80  # characters of a given value that are shown


def brief(message: str) -> str:
    r"""Reduce a nested message of jsonargparse to one line: the key, what is wrong with it, and what was given.

    Example:
        >>> brief("Parser key \"seed\":\n  Expected a <class 'int'>\n  Given value: x")
        'seed: expected int; given x'
    """
    keys: list[str] = []
    reasons: list[str] = []
    given: list[str] = []
    class_path = ""
    for line in re.sub(r'(?<=[^\s-]) (?=Parser key "|Problem with given class_path)', "\n", message).splitlines():
        text = line.strip().removeprefix("- ").strip()
        if match := _KEY.match(text):
            keys.append(match[1])
            text = match[2]
        if match := _CLASS.match(text):
            class_path, text = match[1], match[2]
        given += [value or "''" for value in _GIVEN.findall(text)]
        text = re.sub(r"(^|\. )(Given|Got) value:.*$", "", text)
        if not _NOISE.match(text):
            reasons.append(_plain(text, class_path))
    value = _innermost(given[0], keys) if given else ""
    reasons = _main([reason for reason in reasons if reason])
    if not reasons:
        reasons = [_no_such_class(value) if value else message.strip().partition("\n")[0]]
    key = ".".join(keys)
    if key == "trainer.logger" and not class_path:
        reasons = ["no logger; add --config run/wandb or --config run/tensorboard, or name a class"]
    line = f"{key}: " if key and key != "config" else ""
    line += "; ".join(dict.fromkeys(reasons))
    shown = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", line)
    if value and not shown and not given[0].startswith(("Namespace", "[Namespace", "NestedArg", "{")):
        line += f"; given {_short(value)}"
    return line


def _main(reasons: list[str]) -> list[str]:
    """One reason for all simple types that a value may have; that it is no class says nothing beside them."""
    simple = [reason.removeprefix("expected ") for reason in reasons if re.match(r"expected [a-z]+$", reason)]
    if not simple:
        return reasons
    others = [reason for reason in reasons if reason.removeprefix("expected ") not in simple]
    expected = f"expected {' or '.join(dict.fromkeys(simple))}"
    return [expected, *(reason for reason in others if not _OF_ANOTHER_KIND.search(reason))]


def _innermost(given: str, keys: list[str]) -> str:
    """What was given for the last of the keys, where the message shows what was given for the first."""
    if match := re.match(r"NestedArg\(key='[^']*', val='(.*)'\)$", given):
        return match[1]
    try:
        value = ast.literal_eval(given)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return given
    for key in [part for path in keys for part in path.split(".")]:
        arguments = value.get("init_args", value) if isinstance(value, dict) else {}
        value = arguments.get(key, value) if isinstance(arguments, dict) else value
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        return str(value["class_path"])
    return value if isinstance(value, str) and value else given


def _no_such_class(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        return f"there is no file {_short(name)}; its path starts at the config that names it"
    if name in _known_classes():
        return f"{name} is a class of another kind than is needed here"
    return f"there is no class {_short(name)}{did_you_mean(name, _known_classes()) or '; name it as module.Class'}"


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[:LONGEST]} ..."


# jsonargparse's words and ours; the groups are names
_WORDS = (
    (r"^Expected a <class '([^']+)'>", r"expected \1"),
    (r"^Expected a typing.Literal\[([^]]+)\]", r"expected one of \1"),
    (r"^Type \S.* expects a function or a callable class: ", ""),
    (r"^Not a valid subclass of (\w+).*$", r"expected a \1: class_path and init_args"),
    (r"^Import path (\S+) does not correspond to a subclass of (\w+)$", r"\1 is no \2"),
    (r"^Expected '([^']+)' to be a subclass of <class '(?:[^']*\.)?(\w+)'>\.?$", r"\1 is no \2"),
    (r"^Unexpected import path format: (.*)$", r"\1 is no class; name it as module.Class"),
    (r"^Expected an instantiatable class, but (\S+) is abstract.*$", r"\1 is abstract; name a class of its kind"),
    (r"^No module named '[^']*'$", ""),  # what was given says more
    (r"^Config file loop detected: (\S+) -> .*$", r"\1 names no class; give a class, or a YAML file with class_path"),
    (r"^Key \"([\w.]+)\.\w+\" not found in namespace\.?$", r"\1 holds no keys; give it some, or leave it out"),
    (r"^Key must be a string, got: (.*?)\.?$", r"a key of the config is \1, but keys are words"),
    (r"^(?:'\w+' object has no attribute|argument of type '\w+' is not iterable|unhashable type|.*object is not).*$",
     "expected a class: class_path and init_args"),
)  # fmt: skip


def _plain(text: str, class_path: str) -> str:
    for theirs, ours in _WORDS:
        text = re.sub(theirs, ours, text)
    if match := re.match(r"the following arguments are required: (.*)$", text):
        missing = match[1].replace("fit.", "")
        if not set(re.findall(r"[\w.]+", missing)) <= {"model", "data"}:
            return f"{missing} missing, but required; give it a value"
        return f"{missing} missing; give --config FILE, for example configs/digits/logit_matching.yaml"
    if match := _UNKNOWN_OPTION.match(text):
        return f"{class_path.rsplit('.', 1)[-1]} has no {match[1]}{did_you_mean(match[1], _parameters(class_path))}"
    if match := re.match(r"^Subcommand '\w+' does not accept option '([^']+)'", text):
        key = match[1].partition(".")[0]
        return f"a config has no key {key}{did_you_mean(key, list(SECTIONS))}"
    if match := re.match(r"^module '([^']+)' has no attribute '([^']+)'", text):
        public = getattr(importlib.import_module(match[1]), "__all__", ())
        return f"{match[1]} has no {match[2]}{did_you_mean(match[2], list(public))}"
    return text


def _parameters(class_path: str) -> list[str]:
    """The arguments that the parser takes for a class: its constructor's and, where it passes others on, its bases'."""
    module, _, name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    return [parameter.name for parameter in get_signature_parameters(cls)]


def _known_classes() -> list[str]:
    """The public classes that may be given by their short name."""
    modules = ("kdlab.methods", "kdlab.losses", "kdlab.teachers", "kdlab.data")
    return [name for module in modules for name in importlib.import_module(module).__all__]


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;")
