"""Items of an audit on several processes, each on cores of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from invdiff.audit.parts import Item
from invdiff.core import InvdiffError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lines(items: Sequence[Item], workers: int) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Every item with its line, in their order: the file does not depend on the workers.

    workers: processes, at least 1. When the caller stops, they are ended at whatever they are.
    Raises InvdiffError where one of them dies.
    """
    if workers == 1 or len(items) < 2:
        for item in items:
            yield item, item.measured()
        return
    pool = ProcessPoolExecutor(
        min(workers, len(items)),
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(max(1, cores() // workers),),
    )
    before = set(multiprocessing.active_children())
    try:
        waiting = [pool.submit(Item.measured, item) for item in items]
        for item, done in zip(items, waiting, strict=True):
            yield item, done.result()
    except BrokenProcessPool:
        raise InvdiffError(
            "A process of the audit died, as it does where memory runs out; go on with --resume "
            "and fewer --workers."
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
            process.join()


def _begin(threads: int) -> None:
    """Leave Ctrl-C to the parent, and take so many threads."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
