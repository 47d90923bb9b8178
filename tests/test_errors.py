import pytest

from kdlab.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("no room\nat layer 3"), "no room"),
        (ValueError("\n  late\nmore"), "late"),
        (KeyError("weight"), "'weight'"),
        (AssertionError(), "AssertionError"),
        (OSError(" \n "), "OSError"),
    ],
)
def test_of_a_librarys_error_the_first_line_is_said_or_its_class(error, line):
    assert first_line(error) == line
