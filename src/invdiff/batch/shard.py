"""A shard: its items one after the other, and then its file in the manifest."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invdiff.batch.items import BatchItem
from invdiff.batch.packed import pack, remove_folder
from invdiff.batch.place import Place, dumps, head, lines, unwritable, write_lines
from invdiff.batch.plan import finished
from invdiff.core.durable import sync, sync_system, sync_tree

Restore = Callable[[Place, BatchItem, Sequence[BatchItem]], dict[str, Any]]
"""What restores an item; it is told those that come next."""
Tell = Callable[[str, bool], None]
AHEAD = 32
"""Items that are known to come next."""


@dataclass(frozen=True)
class ShardAsked:
    """A shard to be worked on. retry: what failed before too. skip: items that ended processes,
    with the sentence that tells so. alone: none runs with others, so that such an item is known."""

    shard: int
    retry: bool = False
    skip: tuple[tuple[str, str], ...] = ()
    alone: bool = False


@dataclass(frozen=True)
class ShardDone:
    """What became of it. held: another process is at it, so nothing was done."""

    shard: int
    items: int = 0
    failed: int = 0
    held: bool = False


def work(
    place: Place, asked: ShardAsked, restore: Restore, tell: Tell = lambda i, ok: None
) -> ShardDone:
    """Restore what is left of a shard, and write what became of it.

    tell(id, ok): called after each item that was not in the manifest. A process that ends within
    leaves whole items, which the next one finds, and no file in the manifest.
    """
    shard = asked.shard
    with place.holding(shard) as mine:
        if not mine:
            return ShardDone(shard, held=True)
        if finished(place, shard, asked.retry):
            have = head(place.manifest(shard)) or {}
            return ShardDone(shard, have["items"], have["failed"])
        began = time.time()
        before = {line["id"]: line for line in lines(place.manifest(shard))}
        kept = {i: line for i, line in before.items() if not ("error" in line and asked.retry)}
        found = _worked(place, asked, kept, restore, tell)
        failed = sum("error" in line for line in found)
        fresh = [line["id"] for line in found if line["id"] not in kept]
        packs = place.told().get("tar", False)
        if packs:
            found = pack(place, shard, found)
        try:
            _sync(place, [] if packs else fresh)
        except OSError as error:
            raise unwritable(place.out, error) from error
        told: dict[str, Any] = {"shard": shard, "items": len(found), "failed": failed}
        told["began"] = round(began, 2)
        told["plan"] = (head(place.plan(shard)) or {})["plan"]
        write_lines(place.manifest(shard), told, [dumps(line) for line in found])
        for name in fresh if packs else ():
            remove_folder(place.items / name)
        with contextlib.suppress(OSError):
            place.at(shard).unlink(missing_ok=True)
        return ShardDone(shard, len(found), failed)


def tidied(place: Place, shard: int) -> None:
    """Remove what a process left that ended just after it had finished a shard: where it was."""
    if place.at(shard).exists():
        with place.holding(shard) as mine, contextlib.suppress(OSError):
            if mine and finished(place, shard):
                place.at(shard).unlink(missing_ok=True)


def _worked(
    place: Place,
    asked: ShardAsked,
    kept: Mapping[str, dict[str, Any]],
    restore: Restore,
    tell: Tell,
) -> list[dict[str, Any]]:
    """The lines of all items of a shard, in order."""
    found, skipped = [], dict(asked.skip)
    with _telling(place.at(asked.shard)) as at:
        for item, ahead in _with_next(place, asked.shard):
            line = kept.get(item.id)
            if line is None:
                at(item.id)
                if item.id in skipped:
                    line = {"id": item.id, "error": skipped[item.id], "kind": "died"}
                else:
                    left = [i for i in ahead if i.id not in kept and i.id not in skipped]
                    line = restore(place, item, [] if asked.alone else left)
                tell(item.id, "error" not in line)
            found.append(line)
    return found


def _with_next(place: Place, shard: int) -> Iterator[tuple[BatchItem, Sequence[BatchItem]]]:
    """The items of a shard, each with those that follow it."""
    items = (
        BatchItem(told["id"], told["path"], told.get("within", {}))
        for told in lines(place.plan(shard))
    )
    coming = deque(itertools.islice(items, AHEAD + 1))
    while coming:
        item = coming.popleft()
        yield item, tuple(coming)
        coming.extend(itertools.islice(items, 1))


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[Callable[[str], None]]:
    """Tell in a file, for the block, which item a shard is at: what a dead process leaves.

    Written in place and padded, because to cut a file short makes some file systems wait for the
    disk.
    """
    try:
        descriptor, longest = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), 0
    except OSError as error:
        raise unwritable(path.parent, error) from error

    def tell(name: str) -> None:
        nonlocal longest
        text = json.dumps(name).encode()
        longest = max(longest, len(text))
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, text.ljust(longest) + b"\n", 0)

    try:
        yield tell
    finally:
        os.close(descriptor)


def item_at(place: Place, shard: int) -> str:
    """The item at which the last process that worked on a shard was; "" where none began."""
    try:
        with open(place.at(shard), "rb") as file:
            return str(json.loads(file.readline()))
    except (OSError, ValueError):
        return ""


def _sync(place: Place, ids: list[str]) -> None:
    """Wait until the results of items are on the disk."""
    if not ids or sync_system(place.items):
        return
    folders = [place.items / i for i in ids if (place.items / i).is_dir()]
    for folder in folders:
        sync_tree(folder)
    above = {p for f in folders for p in f.parents if place.items in (p, *p.parents)}
    for folder in sorted(above):
        sync(folder)
