"""Ray as the crew: it only hands shards to a pool of actors, and starts those anew that died.

Plain actors, not Ray Data: images are read and written where they lie, on a file system that all
machines share, so nothing is to flow through Ray's object store; and what is finished is known from
the manifest, which outlives the cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from typing import Any

from invdiff.batch.place import Place
from invdiff.batch.shard import ShardAsked, ShardDone, work
from invdiff.batch.workers import Died, Event, Restored, RunStopped, outcome, restorer
from invdiff.core import InvdiffError

MISSING = "--cluster needs Ray, which is not installed; pip install 'invdiff[cluster]'."


PATIENCE = 5.0
"""Seconds that a cluster has to answer; Ray itself tries for many minutes."""


class Actor:
    """What runs on a node: the recipe and the shards are read from the folder of the batch."""

    def __init__(self, out: str) -> None:
        self.place = Place(out)
        self.restore: Any = None

    def work(self, asked: ShardAsked) -> tuple[list[tuple[str, bool]], ShardDone | RunStopped]:
        """Work on a shard; the items that were restored or failed, and how it ended."""
        seen = list[tuple[str, bool]]()
        try:
            self.restore = self.restore or restorer(self.place)
            return seen, work(self.place, asked, self.restore, lambda i, ok: seen.append((i, ok)))
        except Exception as error:
            return seen, outcome(error)


class Cluster:
    """A crew of actors. address: of a cluster, or `local`. Raises InvdiffError without Ray."""

    def __init__(self, place: Place, address: str, count: int) -> None:
        try:
            import ray
        except ImportError:
            raise InvdiffError(MISSING) from None
        self.place, self.address, self.most, self._ray = place, address, count, ray
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._tasks: dict[Any, tuple[Any, ShardAsked]] = {}

    def free(self) -> bool:
        return len(self._tasks) < self.most

    def busy(self) -> int:
        return len(self._tasks)

    def give(self, asked: ShardAsked) -> None:
        if not self._idle:
            self._idle.append(self._started())
        actor = self._idle.pop()
        self._tasks[actor.work.remote(asked)] = (actor, asked)

    def events(self, seconds: float) -> Iterator[Event]:
        if not self._tasks:
            return
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        for task in ready:
            actor, asked = self._tasks.pop(task)
            try:
                seen, ended = self._ray.get(task)
            except self._ray.exceptions.RayError as error:
                self._actors.remove(actor)
                yield Died(asked.shard, type(error).__name__)
                continue
            self._idle.append(actor)
            yield from (Restored(name, ok) for name, ok in seen)
            yield ended

    def end(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        self._actors, self._idle, self._tasks = [], [], {}
        if self._ray.is_initialized():
            self._ray.shutdown()

    def _started(self) -> Any:
        """A new actor; an autoscaler makes room for it where the cluster has none."""
        self._connect()
        gpus = self.place.told()["recipe"]["device"] != "cpu" and self._gpus
        made = self._ray.remote(num_cpus=1, num_gpus=int(bool(gpus)), max_restarts=0)(Actor)
        self._actors.append(made.remote(str(self.place.out)))
        return self._actors[-1]

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = self.address == "local"
        _check_reached(self.address)
        more = {"num_cpus": self.most, "include_dashboard": False} if here else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.init(
                    address=self.address, log_to_driver=False, logging_level=logging.ERROR, **more
                )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _unreached(self.address, error) from error

    @property
    def _gpus(self) -> float:
        return float(self._ray.cluster_resources().get("GPU", 0))


def _check_reached(address: str) -> None:
    """Raise InvdiffError where nothing answers at HOST:PORT; other words are Ray's to know."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _unreached(address, error) from None


def _unreached(address: str, error: Exception) -> InvdiffError:
    reason = " ".join(str(error).split())[:200]
    return InvdiffError(
        f"There is no Ray cluster at {address} ({reason}); give the address that `ray start` "
        "printed, or `local`."
    )
