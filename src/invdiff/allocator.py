"""What is freed is kept for the next array: glibc's allocator, in processes that are invdiff's own.

As it is set by itself, glibc returns the top of its heap to the system as soon as some megabytes
are free, and each evaluation of a network asks for it again, page by page: 5 % of the time of a
run (`benchmarks/allocator.py`). A program that imports invdiff keeps its own setting.
"""

from __future__ import annotations

import os
import sys

TRIM, MAPPED = 128 * 2**20, 32 * 2**20
"""Free bytes at the top of the heap that are kept; blocks from which the system is asked at once,
and given back to, the most that glibc takes."""
SETTINGS = {"MALLOC_TRIM_THRESHOLD_": TRIM, "MALLOC_MMAP_THRESHOLD_": MAPPED}
"""Variables by which glibc is told as it starts."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed() -> bool:
    """Set the allocator of this process, and of those that it starts; whether it was set.

    What the user has set by SETTINGS or GLIBC_TUNABLES stays. Elsewhere than on Linux with glibc
    nothing is done.
    """
    told = [*SETTINGS, "GLIBC_TUNABLES"]
    if sys.platform != "linux" or any(name in os.environ for name in told):
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    os.environ.update({name: str(value) for name, value in SETTINGS.items()})
    done = mallopt(M_TRIM_THRESHOLD, TRIM) and mallopt(M_MMAP_THRESHOLD, MAPPED)
    return bool(done)
