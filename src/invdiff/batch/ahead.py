"""Where the processes of a batch come from; it imports nothing, so that it can begin at once.

Most of the time that a worker takes to start is spent on imports. Where the system can, one process
imports for all of them, while the command itself still imports, and each worker is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.context import BaseContext

FORKS = sys.platform == "linux"
"""Elsewhere a fork after the import of such libraries is not safe, or there is none."""
NEEDED = "invdiff.batch.workers"


def begin(args: Sequence[str]) -> None:
    """Start to import what workers need, where the arguments of `invdiff batch` will ask for some.

    Nothing is wrong where they do not: the process ends with this one.
    """
    if not FORKS or any(a.partition("=")[0] in ("--status", "--report", "--cluster") for a in args):
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([NEEDED])
    if threading.current_thread() is not threading.main_thread():
        return forkserver.ensure_running()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process has it so; we answer it
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def context() -> BaseContext:
    """What starts workers."""
    return multiprocessing.get_context("forkserver" if FORKS else "spawn")
