"""What jsonargparse says about a mistake in a config, as the one line that matters."""

import ast
import importlib
import re

from jsonargparse._parameter_resolvers import get_signature_parameters  # it is in no public module of 4.53

from kdlab.close_names import did_you_mean
from kdlab.kinds import KINDS, classes

SECTIONS = ("model", "data", "trainer", "seed_everything", "profile", "runs_dir", "experiment", "name", "ckpt_path")

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
        missing = re.sub(r"\b(fit|validate|test|predict)\.", "", match[1])
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
    return [cls.__name__ for kind in KINDS.values() if kind.short_names for cls in classes(kind)]
