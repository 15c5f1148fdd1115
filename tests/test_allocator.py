"""The allocator keeps what is freed, in processes that are invdiff's own."""

import os
import platform
import subprocess
import sys

import pytest

from invdiff.allocator import SETTINGS

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
pytestmark = pytest.mark.skipif(not GLIBC, reason="it is about glibc")
ROUNDS = """
import resource, numpy as np
for _ in range(40):
    kept = [np.ones(2**19, np.float32) for _ in range(20)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(before: str, **told: str) -> int:
    """Pages that a process asks for, of some 10,000 that it uses again and again."""
    clean = {k: v for k, v in os.environ.items() if k not in (*SETTINGS, "GLIBC_TUNABLES")}
    done = subprocess.run(
        [sys.executable, "-c", before + ROUNDS],
        capture_output=True, text=True, check=True, env=clean | told,
    )  # fmt: skip
    return int(done.stdout.split()[-1])


def test_what_is_freed_is_used_again() -> None:
    asked = faults("from invdiff.allocator import keep_freed; assert keep_freed()")
    assert asked < 60_000 < 200_000 < faults("")


def test_a_command_does_so_and_its_processes() -> None:
    before = "from invdiff.cli import main; main(['solvers', '--no-such'])"
    assert faults(before) < 100_000
    child = (
        "import subprocess, sys; from invdiff.allocator import keep_freed; keep_freed();"
        f"print(subprocess.run([sys.executable, '-c', {ROUNDS!r}], capture_output=True, text=True)"
        ".stdout); sys.exit()"
    )
    assert faults(child) < 60_000


def test_what_the_user_has_set_stays() -> None:
    before = "from invdiff.allocator import keep_freed; assert not keep_freed()"
    assert faults(before, GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072") > 200_000
