"""A look at config files before they are parsed: YAML that is none, and keys given twice, with file and line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from kdlab.errors import UsageError
from kdlab.parser import find_config


def check_yaml(path: Path) -> None:
    """Refuse a file that is no YAML mapping or gives a key twice, and the files it includes alike.

    PyYAML lets the second of two equal keys win without a word.

    Raises:
        UsageError: with the file and the line of the first mistake.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text file in UTF-8; give a YAML file") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
        raise UsageError(f"{path}, line {line}: no valid YAML ({error.problem}){hint}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path} holds no keys; a config has the sections model, data and trainer")
    for text in _strings(root, path):
        included = path.parent / text
        if text.endswith((".yaml", ".yml")) and included.is_file():
            check_yaml(included)


def find_configs(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the configs that are meant by name as paths, once they were looked at.

    Raises:
        UsageError: if a config is not there or no YAML.
    """
    found = list(arguments)
    for i, argument in enumerate(found):
        if argument in ("--config", "-c") and i + 1 < len(found):
            found[i + 1] = find_config(found[i + 1])
            check_yaml(Path(found[i + 1]))
        elif argument.startswith("--config="):
            path = find_config(argument.removeprefix("--config="))
            check_yaml(Path(path))
            found[i] = f"--config={path}"
    return found


def _strings(node: yaml.Node, path: Path) -> Iterator[str]:
    """All values that are text, looking for keys given twice on the way."""
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _strings(item, path)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                first = seen[key.value]
                raise UsageError(
                    f"{path}, line {line}: {key.value} is given a second time (first in line {first}); keep one"
                )
            seen[key.value] = line
            yield from _strings(value, path)
