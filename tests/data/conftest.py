import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdlab.data import Digits

UNPACK = Path(__file__).parents[3] / "shared" / "data" / "unpack.py"


@pytest.fixture(scope="session")
def real_data_dir(tmp_path_factory):
    """A folder with the real MNIST (raw files) and CIFAR-100; skips where neither is at hand."""
    if given := os.environ.get("KDLAB_DATA_DIR"):
        return Path(given)
    if not UNPACK.exists():
        pytest.skip(f"KDLAB_DATA_DIR is not set and {UNPACK} does not exist")
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, UNPACK, "--out", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def digits():
    """The digits with default arguments, read once; do not change it."""
    data = Digits()
    data.setup()
    return data
