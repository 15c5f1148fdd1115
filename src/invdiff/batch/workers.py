"""Processes on this machine that work on shards: each waits at a pipe, and ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from invdiff.allocator import keep_freed
from invdiff.batch.ahead import context
from invdiff.batch.one import Restorer
from invdiff.batch.place import Place, StoppedError
from invdiff.batch.recipe import BatchRecipe
from invdiff.batch.shard import Restore, ShardAsked, ShardDone, work
from invdiff.core import InvdiffError
from invdiff.core.errors import sentence

GRACE = 5.0
"""Seconds that a process has to end."""


@dataclass(frozen=True)
class Restored:
    """An item was restored, or failed."""

    id: str
    ok: bool


@dataclass(frozen=True)
class Died:
    """A process ended within a shard, or, where that is None, before its first."""

    shard: int | None
    how: str


@dataclass(frozen=True)
class RunStopped:
    """The run cannot go on. asked: because of what it was asked, and not of the machine."""

    said: str
    asked: bool


Event = Restored | ShardDone | Died | RunStopped


class Crew(Protocol):
    """Who works on shards. most: how many are worked on at once."""

    @property
    def most(self) -> int: ...

    def free(self) -> bool:
        """Whether one more shard can be given."""
        ...

    def busy(self) -> int:
        """How many shards are worked on."""
        ...

    def give(self, asked: ShardAsked) -> None:
        """Let a shard be worked on."""
        ...

    def events(self, seconds: float) -> Iterator[Event]:
        """What happened; waits so long for the first."""
        ...

    def end(self) -> None:
        """End whoever works; what is whole stays."""
        ...


def restorer(place: Place) -> Restorer:
    """What restores the items of a batch. One thread: sums then have one order everywhere."""
    torch.set_num_threads(1)
    keep_freed()
    return Restorer(BatchRecipe.of(place.told()["recipe"]))


def outcome(error: BaseException) -> RunStopped:
    """What ends a run, in words."""
    machine = isinstance(error, StoppedError) or not isinstance(error, InvdiffError)
    return RunStopped(sentence(error), not machine)


class Here:
    """A crew of this process."""

    most = 1

    def __init__(self, place: Place, restore: Restore | None = None) -> None:
        self.place, self._restore = place, restore
        self._asked: ShardAsked | None = None
        self._threads = torch.get_num_threads()

    def free(self) -> bool:
        return self._asked is None

    def busy(self) -> int:
        return int(self._asked is not None)

    def give(self, asked: ShardAsked) -> None:
        self._asked = asked

    def events(self, seconds: float) -> Iterator[Event]:
        asked, seen = self._asked, list[Event]()
        if asked is None:
            return
        try:
            self._restore = self._restore or restorer(self.place)
            done = work(
                self.place, asked, self._restore, lambda i, ok: seen.append(Restored(i, ok))
            )
            self._asked = None
            yield from [*seen, done]
        except Exception as error:
            self._asked = None
            yield from [*seen, outcome(error)]

    def end(self) -> None:
        torch.set_num_threads(self._threads)


class Processes:
    """A crew of processes of this machine; one that died is started again."""

    def __init__(self, place: Place, count: int) -> None:
        self.place, self.most = place, count
        self._workers = [_Worker(place, number) for number in range(count)]

    def free(self) -> bool:
        return any(w.asked is None for w in self._workers)

    def busy(self) -> int:
        return sum(w.asked is not None for w in self._workers)

    def give(self, asked: ShardAsked) -> None:
        next(w for w in self._workers if w.asked is None).give(asked)

    def events(self, seconds: float) -> Iterator[Event]:
        by_pipe = {w.pipe: w for w in self._workers if w.asked is not None}
        for pipe in wait(list(by_pipe), seconds):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                event = worker.died()
            if isinstance(event, ShardDone):
                worker.asked = None
            yield event

    def end(self) -> None:
        for worker in self._workers:
            worker.end()


class _Worker:
    """The parent's side of a process."""

    def __init__(self, place: Place, number: int) -> None:
        self.place, self.number = place, number
        self.asked: ShardAsked | None = None
        self.pipe: Connection
        self._process: Any = None

    def give(self, asked: ShardAsked) -> None:
        """Let the process work on a shard, and start it if none runs."""
        self.asked = asked
        if self._process is None:
            started = context()
            self.pipe, other = started.Pipe()
            process = started.Process(
                target=serve, args=(other, str(self.place.out), self.number), daemon=True
            )
            with contextlib.suppress(EOFError, OSError):  # what forks it was killed
                process.start()
                self._process = process
            other.close()
        with contextlib.suppress(OSError):  # it died: the next event tells
            self.pipe.send(asked)

    def died(self) -> Died:
        """Bury the process; what is known of its end."""
        asked, process = self.asked, self._process
        self.end()
        code = None if process is None else process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        how = "it did not start" if code is None else how
        return Died(None if asked is None else asked.shard, how)

    def end(self) -> None:
        """End the process, at whatever it is."""
        if self.asked is not None or self._process is not None:
            self.pipe.close()
        if self._process is not None:
            self._process.join(0.05 if self.asked is None else 0)
            self._process.kill()
            self._process.join(GRACE)
        self._process, self.asked = None, None


def serve(pipe: Connection, out: str, number: int) -> None:
    """The process: shards from the pipe, until it is closed. The parent answers signals."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    devices = torch.cuda.device_count()
    if devices > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % devices)
    place = Place(out)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            restore = restorer(place)
            while True:
                pipe.send(
                    work(place, pipe.recv(), restore, lambda i, ok: pipe.send(Restored(i, ok)))
                )
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the parent has ended
        except Exception as error:
            pipe.send(outcome(error))
