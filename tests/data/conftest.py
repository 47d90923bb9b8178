import pytest

from kdlab.data import Digits


@pytest.fixture(scope="session")
def digits():
    """The digits with default arguments, read once; do not change it."""
    data = Digits()
    data.setup()
    return data
