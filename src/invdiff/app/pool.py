"""One worker for each device, and the line of jobs that wait for one."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from invdiff import plugins
from invdiff.app.messages import ENDS, Failed, Message, Stopped, Stopping, Waiting
from invdiff.app.worker import work
from invdiff.core import InvdiffError

PATIENCE = 20.0
"""Seconds that a worker has to stop its job before it is ended."""
GRACE = 3.0
"""Seconds that one has to end by itself."""
DIED = "The process that did this job ended without a word, perhaps for lack of memory; try again."


class Worker:
    """The parent's side of a worker process. It is started anew where it has died."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Connection
        self._stop: Any = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return None if self._process is None else int(self._process.pid)

    def start(self) -> None:
        """Start the process, if none runs."""
        if self.alive:
            return
        self._pipe, other = self._context.Pipe()
        self._stop = self._context.Event()
        specs = list(dict.fromkeys(plugins.ASKED))
        self._process = self._context.Process(
            target=work, args=(other, self._stop, specs, self.device), daemon=True
        )
        self._process.start()
        other.close()

    def run(self, asked: Any, stopped: Callable[[], bool]) -> Iterator[Message | None]:
        """Do a job; its messages, and None now and then while there is none."""
        self.start()
        self._stop.clear()
        asked_to_stop, ended = None, False
        try:
            self._pipe.send(asked)
            while True:
                if stopped() and asked_to_stop is None:
                    self._stop.set()
                    asked_to_stop = time.monotonic()
                    yield Stopping()
                if asked_to_stop and time.monotonic() - asked_to_stop > PATIENCE:
                    self.end()
                    yield Stopped(0, 0, False)
                    return
                if not self._pipe.poll(0.1):
                    yield None
                    continue
                message = self._pipe.recv()
                ended = isinstance(message, ENDS)
                yield message
                if ended:
                    return
        except (EOFError, OSError):
            self.end()
            yield Failed(DIED)
        except GeneratorExit:  # nobody listens any more: the next job finds an idle worker
            if not ended:
                self._drain()
            raise

    def _drain(self) -> None:
        """Stop the job under way; end the process if it does not."""
        self._stop.set()
        until = time.monotonic() + PATIENCE
        with suppress(EOFError, OSError):
            while time.monotonic() < until:
                if self._pipe.poll(0.1) and isinstance(self._pipe.recv(), ENDS):
                    return
        self.end()

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._pipe.close()  # at which an idle one ends by itself, and leaves nothing
            self._process.join(GRACE)
            self._process.kill()
            self._process.join(5)
            self._process = None


class Pool:
    """The workers, and who waits for one. longest: how many may wait."""

    def __init__(self, devices: Sequence[str], longest: int) -> None:
        self.workers = [Worker(device) for device in devices]
        self._free = list(self.workers)
        self._line: list[object] = []
        self._changed, self._longest = threading.Condition(), longest

    def start(self) -> None:
        """Start all workers, so that the first job need not wait for them."""
        for worker in self.workers:
            worker.start()

    def end(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.end()

    def run(self, asked: Any, stopped: Callable[[], bool]) -> Iterator[Message | None]:
        """Do a job when it is its turn: its place in line, then what the worker tells."""
        ticket, worker, told = object(), None, 0
        with self._changed:
            if not self._free and len(self._line) >= self._longest:
                raise InvdiffError(
                    f"{len(self._line)} jobs wait already, which is as many as this page lets; "
                    "try again later."
                )
            self._line.append(ticket)
        try:
            while worker is None:
                with self._changed:
                    place = self._line.index(ticket)
                    if place < len(self._free):
                        worker = self._free.pop(0)
                        self._line.remove(ticket)
                        self._changed.notify_all()
                        break
                    if place + 1 == told:
                        self._changed.wait(0.3)
                place = place + 1 - len(self._free)
                if stopped():
                    yield Stopped(0, 0, False)
                    return
                yield Waiting(place) if place != told else None
                told = place
            yield from worker.run(asked, stopped)
        finally:
            with self._changed:
                if worker is not None:
                    self._free.append(worker)
                if ticket in self._line:
                    self._line.remove(ticket)
                self._changed.notify_all()
