"""Configs are found by name from any folder."""

from pathlib import Path

import pytest

from kdlab.config_files import find_config
from kdlab.errors import UsageError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize(
    "name", ["digits/teacher", "digits/teacher.yaml", "configs/digits/teacher", "configs/digits/teacher.yaml"]
)
def test_a_config_of_the_package_is_found_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == str(CONFIGS / "digits" / "teacher.yaml")


def test_a_file_is_taken_as_it_is_before_a_config_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "teacher.yaml").write_text("")
    assert find_config("digits/teacher.yaml") == "digits/teacher.yaml"
    assert find_config(str(tmp_path / "digits" / "teacher.yaml")) == str(tmp_path / "digits" / "teacher.yaml")


@pytest.mark.parametrize(
    ("name", "message"), [("", "the name of the config is empty"), (".", "config . is a folder"), ("/", "is a folder")]
)
def test_a_name_of_nothing_is_an_error(name, message):
    with pytest.raises(UsageError, match=message):
        find_config(name)


def test_a_config_that_does_not_exist_is_an_error_with_close_names():
    with pytest.raises(UsageError, match="there is no config digits/logit_maching; did you mean digits/logit_matching"):
        find_config("digits/logit_maching")
    with pytest.raises(
        UsageError, match=r"there is no config configs/digit/teacher\.yaml; did you mean .*digits/teacher"
    ):
        find_config("configs/digit/teacher.yaml")


@pytest.mark.parametrize("name", ["digits", "../secret", "qqqqqqqqqqqq"])
def test_what_is_no_config_is_an_error_in_one_line(name):
    with pytest.raises(UsageError, match="there is no config") as caught:
        find_config(name)
    assert "\n" not in str(caught.value)
