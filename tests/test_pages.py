"""The tutorials, read literally: every file they show is written, every command they show is given, in order.

A comment ``<!-- not run: WHY -->`` before a block leaves it out; ``<!-- file: NAME, ... -->`` after a block of YAML, or
a line "`NAME`:" before it, says where the reader saves it.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdlab.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ["quickstart.md", "configuration.md", "extending.md", *(f"tutorials/{page.name}" for page in
         sorted((DOCS / "tutorials").glob("*.md")) if page.name != "index.md")]  # fmt: skip
PROFILED = ("tutorials/techniques.md",)  # one run spends what another one did; elsewhere the figures are not looked at
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.+?) -->\n)?^```(?P<language>bash|yaml)\n(?P<text>.*?)^```$", re.M | re.S)
NAMED_BEFORE = re.compile(r"`([\w.]+\.yaml)`:\n\n$")
NAMED_AFTER = re.compile(r"\A\n\n<!-- file: (\S+\.yaml),")


def steps(page: str) -> list[tuple[str, str]]:
    """What the reader of a page does: (command, "") or (file to write, its content)."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        if block["language"] == "yaml":
            name = NAMED_BEFORE.search(text[: block.start()]) or NAMED_AFTER.search(text[block.end() :])
            found += [(name[1], block["text"])] if name else []
        elif block["why"] is None:
            found += [(line, "") for line in block["text"].splitlines() if line.strip()]
    return found


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """The teacher of the digits, trained as its recipe says: the quickstart, which comes first, trains it by itself."""
    runs = tmp_path_factory.mktemp("teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["kdlab"])
        assert main(["fit", "--config", "digits/teacher", "--runs_dir", str(runs), "--profile", "false"]) == 0
    return runs / "digits" / "teacher-seed0"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with what a checkout has, where nothing was run."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(DOCS / "examples", tmp_path / "docs" / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)  # the quickstart has ten commands
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_command_by_command(page, checkout, monkeypatch, request):
    if page in PROFILED:
        monkeypatch.setattr("kdlab.config_cli.PROFILE_BY_DEFAULT", True)
    if page != "quickstart.md":
        shutil.copytree(request.getfixturevalue("teacher_run"), checkout / "runs" / "digits" / "teacher-seed0")
    given = steps(page)
    assert any(not content for _, content in given), "the page has no command that is run"
    for step, content in given:
        if content:
            Path(step).write_text(content, encoding="utf-8")
            continue
        program, *arguments = shlex.split(step, comments=True)
        if program == "cd":
            os.chdir(arguments[0])
            monkeypatch.syspath_prepend(Path.cwd())  # as `python -m` has it
        elif arguments[:2] == ["-m", "kdlab"]:
            monkeypatch.setattr(sys, "argv", ["kdlab", *arguments[2:]])
            assert main(arguments[2:]) == 0, step
        else:
            assert program == "python", step
            subprocess.run([sys.executable, *arguments], check=True, timeout=120)


def test_every_block_of_commands_is_run_or_says_why_not():
    for page in PAGES:
        for block in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
            if block["language"] == "bash":
                assert block["why"] is None or block["why"].strip(), page
    assert {"my_alpha.yaml", "teacher.yaml", "student.yaml"} <= {
        name for page in PAGES for name, text in steps(page) if text
    }


def test_every_example_of_an_extension_is_on_its_page():
    shown = set(re.findall(r"literalinclude\} examples/extending/(\w+\.py)", (DOCS / "extending.md").read_text()))
    assert shown == {path.name for path in (DOCS / "examples" / "extending").glob("*.py")}


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_between_pages_lead_somewhere(page):
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []
