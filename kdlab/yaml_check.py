"""A look at config files before they are parsed: no YAML, keys given twice, nesting without end, by file and line."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import yaml

from kdlab.errors import UsageError

DEEPEST = 50  # levels: a config has about ten, and Python's stack ends at some hundreds
LARGEST = 50_000  # values once all anchors are followed, which can stand for billions in ten lines
PLAIN = "tag:yaml.org,2002:"  # of what YAML itself defines; a tag of another kind makes an object of Python


def check_yaml(path: Path, including: Sequence[Path] = ()) -> None:
    """Refuse a file that is no YAML mapping, gives a key twice or has no end, and the files it includes alike.

    PyYAML lets the second of two equal keys win without a word.

    Args:
        path: the file.
        including: the files that led to it, each included by the one before.

    Raises:
        UsageError: with the file and the line of the first mistake.
    """
    if path.resolve() in including:
        raise UsageError(f"{path} includes itself; name another file there")
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text file in UTF-8; give a YAML file") from error
    except RecursionError:
        raise UsageError(f"{path} is nested more than {DEEPEST} levels deep; no config needs that") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
        raise UsageError(f"{path}, line {line}: no valid YAML ({error.problem}){hint}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(
            f"{path} holds no keys; a config has the sections model, data and trainer, a study has variants"
        )
    for word in _strings(root, path, count(1), 1):
        included = path.parent / word
        if word.endswith((".yaml", ".yml")) and included.is_file():
            check_yaml(included, (*including, path.resolve()))
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a merge of what is no mapping, a 31st of June
        reason = getattr(error, "problem", None) or error
        raise UsageError(f"{path} has a value that is none ({reason}); put text into quotes") from error


def _strings(node: yaml.Node, path: Path, number: Iterator[int], depth: int) -> Iterator[str]:
    """All values that are text, looking for what is no config on the way.

    Args:
        node: whatever stands somewhere in the file.
        path: of the file.
        number: of the nodes so far, each as often as an anchor repeats it.
        depth: of the node.
    """
    place = f"{path}, line {node.start_mark.line + 1}"
    if depth > DEEPEST:
        raise UsageError(f"{place}: nested more than {DEEPEST} levels deep; is an anchor (&) inside itself?")
    if next(number) > LARGEST:
        raise UsageError(f"{place}: more than {LARGEST:,} values once all anchors (&) are followed; repeat less")
    if not node.tag.startswith(PLAIN) or "/" in node.tag:
        tag = node.tag.replace(PLAIN, "!!")
        raise UsageError(f"{place}: the tag {tag} is not read, because it could run code; give a plain value")
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _strings(item, path, number, depth + 1)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            _check_key(key, value, path, seen)
            yield from _strings(value, path, number, depth + 1)


def _check_key(key: yaml.Node, value: yaml.Node, path: Path, seen: dict[str, int]) -> None:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise UsageError(f"{path}, line {line}: a key is a list or a mapping, but keys are words; is a quote missing?")
    if key.value in seen:
        raise UsageError(
            f"{path}, line {line}: {key.value} is given a second time (first in line {seen[key.value]}); keep one"
        )
    seen[key.value] = line
    if key.value == "class_path" and not (value.tag == f"{PLAIN}str" and value.value):
        raise UsageError(f"{path}, line {line}: class_path is no name; give that of a class, as kdlab.models.ResNet20")
    if key.value == "init_args" and not isinstance(value, yaml.MappingNode):
        raise UsageError(f"{path}, line {line}: init_args holds no keys; give the arguments of the class, or {{}}")
