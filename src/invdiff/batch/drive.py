"""A run: shards that are not finished, a crew that works on them, and what becomes of it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from invdiff.batch.place import Place, StoppedError, head
from invdiff.batch.plan import finished
from invdiff.batch.shard import ShardAsked, ShardDone, item_at, tidied
from invdiff.batch.workers import Crew, Died, Restored, RunStopped
from invdiff.core import InvdiffError

DEATHS = 3
"""Processes that an item may end before it is put aside."""
STARTS = 3
"""Processes that may end before their first item, one after the other, for each that works."""
WAIT = 0.5
"""Seconds between looks at shards that others hold."""


@dataclass(frozen=True)
class Count:
    """How far a batch is. shards: finished ones; all are those of the plan."""

    items: int
    done: int
    failed: int
    shards: int
    all: int

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return self.shards == self.all


def count(place: Place) -> Count:
    """How far a batch is, from the heads of its manifest."""
    told = place.told()
    heads = [head(place.manifest(s)) for s in range(told["shards"]) if finished(place, s)]
    known = [h for h in heads if h is not None]
    done, failed = sum(h["items"] for h in known), sum(h["failed"] for h in known)
    return Count(told["items"], done, failed, len(known), told["shards"])


def shards_of(total: int, rank: int, world: int) -> list[int]:
    """All shards, in the order in which a process takes them: its own first.

    The others come last: so the end of one process leaves nothing undone.
    """
    turns = [(rank + k) % world for k in range(world)]
    return [shard for turn in turns for shard in range(turn, total, world)]


def _items(place: Place, shard: int) -> int:
    """How many items a shard has; the largest go first, so that workers end together."""
    plan = head(place.plan(shard))
    return plan["items"] if plan else 0


def drive(
    place: Place,
    crew: Crew,
    retry: bool = False,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[bool], None] = lambda ok: None,
) -> int:
    """Work on all shards that are not finished; how many items were restored or failed here.

    retry: items that failed before too. rank, world: which of several such processes this is: one
    of several leaves to the others what they hold. progress(ok): after each item.
    Raises StoppedError for what the machine refuses, InvdiffError for what every item would meet.
    """
    order = shards_of(place.told()["shards"], rank, world)
    run = _Run(place, crew, retry, progress)
    left = [s for s in order if not finished(place, s, retry)]
    run.todo.extend(sorted(left, key=lambda s: ((s - rank) % world, -_items(place, s))))
    for shard in order:
        tidied(place, shard)
    try:
        while run.todo or crew.busy():
            run.step()
            if not run.todo and not crew.busy() and run.held and world == 1:
                time.sleep(WAIT)
                run.again()
    finally:
        crew.end()
    return run.made


class _Run:
    """The state of a run."""

    def __init__(
        self, place: Place, crew: Crew, retry: bool, progress: Callable[[bool], None]
    ) -> None:
        self.place, self.crew, self.retry, self.progress = place, crew, retry, progress
        self.todo = deque[int]()
        self.held = list[int]()
        self.made, self._starts = 0, 0
        self._deaths, self._ended = Counter[str](), set[int]()
        self._skip: dict[int, dict[str, str]] = {}

    def again(self) -> None:
        """Look again at what others held."""
        self.todo.extend(s for s in self.held if not finished(self.place, s))
        self.held.clear()

    def step(self) -> None:
        """Give what is to be done, and answer what happened."""
        while self.todo and self.crew.free():
            shard = self.todo.popleft()
            skip = tuple(self._skip.get(shard, {}).items())
            self.crew.give(ShardAsked(shard, self.retry, skip, shard in self._ended))
        for event in self.crew.events(WAIT):
            match event:
                case Restored(ok=ok):
                    self.made, self._starts = self.made + 1, 0
                    self.progress(ok)
                case ShardDone(shard=shard, held=True):
                    self.held.append(shard)
                case Died():
                    self._died(event)
                case RunStopped(said=said, asked=asked):
                    raise InvdiffError(said) if asked else StoppedError(said)

    def _died(self, event: Died) -> None:
        """Give the shard again; put the item aside at which processes die."""
        if event.shard is None:
            return
        self.todo.appendleft(event.shard)
        self._ended.add(event.shard)
        at = item_at(self.place, event.shard)
        if not at:
            self._starts += 1
            if self._starts >= STARTS * self.crew.most:
                raise StoppedError(
                    f"Processes end before their first item ({event.how}); give fewer --workers, "
                    "if they lack memory."
                )
            return
        self._deaths[at] += 1
        if self._deaths[at] >= DEATHS:
            self._skip.setdefault(event.shard, {})[at] = (
                f"{DEATHS} processes ended while they restored it ({event.how}), perhaps for lack "
                "of memory; restore it by itself to see why."
            )
