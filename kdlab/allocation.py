"""How this process asks the operating system for memory."""

import ctypes
import sys

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_FROM_THE_HEAP = 32 * 2**20  # the most that glibc accepts
_NEVER = -1


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step instead of handing it back to the kernel.

    On a CPU, PyTorch asks malloc for every activation and frees it in the same step. By default glibc then returns
    the pages, and the next step faults them in again, zeroed, one by one: a small network spends up to half of its
    time there (``benchmarks/allocation.py``). The process stays as large as it was at its peak. Blocks of more than
    32 MiB are still handed back: glibc does not allow more.

    Returns:
        Whether it was done: glibc only, so Linux; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_THE_HEAP) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
