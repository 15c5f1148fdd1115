"""Where the processes of a batch come from; it imports nothing, so that it can begin at once.

Most of the time that a worker takes to start is spent on imports. On Linux one process imports for
all workers, while the command itself still imports, and each worker is a fork of that process.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

FORKS = sys.platform == "linux"
"""Elsewhere a fork after torch was imported is not safe, or there is none."""
NEEDED = "invdiff.batch.workers"


def begin(args: Sequence[str]) -> None:
    """Start to import what workers need, unless the arguments of `invdiff batch` tell that there
    are none here. The process that imports ends with this one.
    """
    if not FORKS or any(a.partition("=")[0] in ("--status", "--report", "--cluster") for a in args):
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([NEEDED])
    if threading.current_thread() is not threading.main_thread():
        return forkserver.ensure_running()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is started ignores it too
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def context() -> ForkServerContext | SpawnContext:
    """What starts workers."""
    if FORKS:
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")
