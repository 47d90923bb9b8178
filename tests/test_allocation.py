"""Freed memory stays with the process."""

import resource
import subprocess
import sys

import pytest

from kdlab import allocation

# 8 MiB asked for and freed again, 50 times, as activations are: how many pages had to be fetched anew
SCRIPT = """
import resource, sys
from kdlab.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
blocks = lambda: [bytearray(2**20) for _ in range(8)]
blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not allocation.keep_freed_memory(), reason="glibc only")
def test_a_step_finds_the_memory_of_the_step_before():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True).stdout)
        for how in ("keep", "return")
    }
    pages = 50 * 8 * 2**20 // resource.getpagesize()
    assert faults["return"] > 0.5 * pages
    assert faults["keep"] < 0.05 * pages


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert not allocation.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    assert not allocation.keep_freed_memory()
