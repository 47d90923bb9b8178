"""Completion as bash does it: the script is read, and asked what may follow."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.verbs import VERBS

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD={last}
_shtab_kdlab kdlab "${{COMP_WORDS[{last}]}}" "${{COMP_WORDS[{before}]}}" 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    path = tmp_path_factory.mktemp("completion") / "kdlab"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return path


def completed(script, folder, *words):
    """What bash offers for the last of the words."""
    asked = ASK.format(script=script, words=" ".join(f"'{word}'" for word in words), last=len(words) - 1,
                       before=len(words) - 2)  # fmt: skip
    done = subprocess.run(["bash", "-c", asked], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_verbs(script, tmp_path):
    assert completed(script, tmp_path, "kdlab", "") >= {"fit", "validate", "test", "predict", *VERBS}
    assert completed(script, tmp_path, "kdlab", "stu") == {"study"}


def test_options_of_a_verb(script, tmp_path):
    assert {"--quick", "--dry-run", "--data_dir"} <= completed(script, tmp_path, "kdlab", "study", "--")
    assert completed(script, tmp_path, "kdlab", "fit", "--trainer.max") == {"--trainer.max_epochs"}
    assert completed(script, tmp_path, "kdlab", "list", "m") == {"methods", "models"}


def test_a_config_is_one_of_kdlabs_or_a_file(script, tmp_path):
    (tmp_path / "digits_of_mine.yaml").touch()
    offered = completed(script, tmp_path, "kdlab", "fit", "--config", "digits")
    assert {"digits/logit_matching", "digits/independent", "digits_of_mine.yaml"} <= offered
    assert all(word.startswith("digits") for word in offered)


def test_another_shell_is_refused(capsys):
    assert main(["completion", "ksh"]) == 2
    assert "invalid choice: 'ksh'" in capsys.readouterr().err


def test_without_shtab_the_way_to_get_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'kdlab[completion]'" in capsys.readouterr().err


def test_the_script_for_zsh_is_one(capsys):
    assert main(["completion", "zsh"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("#compdef kdlab")
    assert "_kdlab_config() { compadd " in out


def test_the_console_script_finds_classes_in_the_working_folder(tmp_path):
    """As `python -m kdlab` does."""
    (tmp_path / "mine.py").write_text("from kdlab.models import DigitsConv\nclass Mine(DigitsConv): pass\n")
    program = Path(sys.executable).parent / "kdlab"
    if not program.exists():
        pytest.skip("the console script is not installed")
    options = ["fit", "--config", "digits/independent", "--model.student", "mine.Mine", "--print_config"]
    done = subprocess.run([program, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "class_path: mine.Mine" in done.stdout
