"""Config files that are no YAML, or say something twice, are named with the line."""

from pathlib import Path

import pytest

from kdlab.errors import UsageError
from kdlab.yaml_check import check_yaml

# 10^8 values in nine lines
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  lr: 1\n  lr: 2\n", "line 3: lr is given a second time (first in line 2); keep one"),
        ("model:\n  a: [{b: 1, b: 2}]\n", "line 2: b is given a second time (first in line 2)"),
        ("model:\n\tlr: 1\n", "line 2: no valid YAML"),
        ("model: [1, 2\ndata: 3\n", "line 2: no valid YAML"),
        ("just words\n", "holds no keys"),
        ("", "holds no keys"),
        ("a: \x00\n", "no valid YAML"),
        ("? [a, b]\n: 1\n", "line 1: a key is a list or a mapping, but keys are words"),
        ("a: &a [*a]\n", "line 1: nested more than 50 levels deep; is an anchor (&) inside itself?"),
        ("a:\n  " + "[" * 60 + "]" * 60 + "\n", "line 2: nested more than 50 levels deep"),
        ("a: " + "[" * 3000 + "]" * 3000 + "\n", "is nested more than 50 levels deep"),
        (BOMB, "more than 50,000 values once all anchors (&) are followed; repeat less"),
        (
            "a: !!python/name:os.system\n",
            "line 1: the tag !!python/name:os.system is not read, because it could run code",
        ),
        ("a: 1\nb: !mine c\n", "line 2: the tag !mine is not read"),
        ("<<: 3\n", "has a value that is none (expected a mapping or list of mappings for merging"),
        ("a: 2026-02-31\n", "has a value that is none (day is out of range for month); put text into quotes"),
        ("model: {class_path: }\n", "line 1: class_path is no name; give that of a class, as kdlab.models.ResNet20"),
        (
            "model:\n  class_path: A\n  init_args: [1]\n",
            "line 3: init_args holds no keys; give the arguments of the class",
        ),
        ("model: mine.yaml\n", "mine.yaml includes itself; name another file there"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        check_yaml(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "\n" not in message


def test_a_tab_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model:\n\tlr: 1\n")
    with pytest.raises(UsageError, match="indent with spaces, not tabs"):
        check_yaml(tmp_path / "mine.yaml")


def test_a_file_of_another_encoding_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(UsageError, match="no text file in UTF-8"):
        check_yaml(tmp_path / "mine.yaml")


def test_included_files_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "mine.yaml").write_text("model: part.yaml\n")
    with pytest.raises(UsageError, match=r"part\.yaml, line 2: a is given a second time"):
        check_yaml(tmp_path / "mine.yaml")


def test_anchors_are_no_repetition(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("members: [&m {a: 1}, *m, *m]\n")
    check_yaml(tmp_path / "mine.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_all_configs_pass(path: Path) -> None:
    check_yaml(path)
