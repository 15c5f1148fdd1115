"""Which items there are, and the shard of each: found once, written, and the same for everybody."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from invdiff import __version__
from invdiff.batch.inside import BROKEN
from invdiff.batch.items import BatchItem, ItemSource, hashed, shard_of
from invdiff.batch.place import FORMAT, PLANNED, Place, dumps, head, lines, unwritable, write_lines
from invdiff.batch.recipe import BatchRecipe
from invdiff.core import InvdiffError
from invdiff.core.durable import own_folder, write_text

LARGEST = 1000
"""Items of a shard by default at most."""
HELD = 200_000
"""Items whose lines are held in memory while a plan is made."""


def default_size(count: int) -> int:
    """Items of a shard: few enough that workers end together, and few files for many items."""
    return max(1, min(LARGEST, round(math.sqrt(count) / 2)))


def planned(
    place: Place,
    source: ItemSource,
    recipe: BatchRecipe,
    size: int | None = None,
    frozen: bool = False,
    tar: bool = False,
) -> dict[str, int]:
    """Make the plan of a batch, or add to it what is new; counts: items, new, passed.

    frozen: leave a plan that is there as it is, as where many machines begin at once. tar: results
    are packed, a tar file for each shard. Raises
    InvdiffError for a batch of other options or inputs, no items, and two of one name.
    """
    place.make()
    with place.holding(PLANNED, wait=True):
        told = place.told() if place.marker.exists() else None
        if told is not None:
            _check_same(place, told, source, recipe, tar)
            if frozen and told["planned"]:
                return {"items": told["items"], "new": 0, "passed": 0}
        try:
            return _made(place, source, recipe, size, told, tar)
        except OSError as error:
            raise unwritable(place.out, error) from error


def _check_same(
    place: Place, told: dict[str, Any], source: ItemSource, recipe: BatchRecipe, tar: bool
) -> None:
    """Raise InvdiffError unless a batch was begun with the same."""
    said = recipe.differs(told["recipe"])
    if told["source"] != source.told():
        said.insert(0, "of other files")
    if told.get("tar", False) != tar:
        said.insert(0, "without --tar" if tar else "with --tar")
    if said:
        raise InvdiffError(
            f"{place.out} was begun otherwise ({'; '.join(said[:4])}); give what it was begun "
            "with, or another --out."
        )


def _made(
    place: Place,
    source: ItemSource,
    recipe: BatchRecipe,
    size: int | None,
    told: dict[str, Any] | None,
    tar: bool,
) -> dict[str, int]:
    passed: list[str] = []
    found = source.items(passed.append)
    part = own_folder(place.out / "work")
    try:
        count = _listed(found, part / "all")
        if not count:
            raise InvdiffError(
                f"There is no image in {', '.join(source.words[:3])}; "
                + (f"{len(passed)} files of other kinds were passed over." if passed else "look.")
            )
        shards = told["shards"] if told else math.ceil(count / (size or default_size(count)))
        known = {
            "format": FORMAT, "invdiff": __version__, "source": source.told(),
            "recipe": recipe.as_dict(), "config": recipe.digest, "shards": shards,
            "tar": tar,
        }  # fmt: skip
        before = told["items"] if told else 0
        _write(place, known | {"items": before, "planned": bool(told and told["planned"])})
        _bucketed(part, shards)
        total = sum(_added(place, s, part / f"{s:05}") for s in range(shards))
        _write(place, known | {"items": total, "planned": True})
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"items": total, "new": total - before, "passed": len(passed)}


def _write(place: Place, told: dict[str, Any]) -> None:
    write_text(place.marker, json.dumps(told, indent=1) + "\n")


def _listed(found: Iterable[BatchItem], path: Path) -> int:
    """Write items to a file, a line each; how many."""
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for item in found:
            file.write(f"{dumps(item.as_dict())}\n")
            count += 1
    return count


def _bucketed(folder: Path, shards: int) -> None:
    """Divide the file `all` by shards, with a bounded number of lines in memory."""
    with open(folder / "all", encoding="utf-8") as file:
        while block := list(itertools.islice(file, HELD)):
            buckets: dict[int, list[str]] = {}
            for line in block:
                buckets.setdefault(shard_of(json.loads(line)["id"], shards), []).append(line)
            for shard, some in buckets.items():
                with open(folder / f"{shard:05}", "a", encoding="utf-8") as to:
                    to.writelines(some)


def _added(place: Place, shard: int, new: Path) -> int:
    """Put items into the plan of a shard; how many it has then.

    A file that could not be looked into is no item any more once it can.
    """
    before = {told["id"]: told for told in lines(place.plan(shard))}
    items = {i: told for i, told in before.items() if BROKEN not in told.get("within", {})}
    listed = set[str]()
    if new.exists():
        with open(new, encoding="utf-8") as file:
            for told in map(json.loads, file):
                if told["id"] in listed:
                    raise InvdiffError(
                        f"Two items have the name {told['id']}, by which results are kept; name "
                        "each once, or give them in two batches."
                    )
                listed.add(told["id"])
                items[told["id"]] = told
    if items != before or not place.plan(shard).exists():
        ids = sorted(items)
        known = {"shard": shard, "items": len(ids), "plan": of_ids(ids)}
        write_lines(place.plan(shard), known, [dumps(items[i]) for i in ids])
    return len(items)


def of_ids(ids: Iterable[str]) -> str:
    """Hash of the names of items, in order."""
    found = hashlib.sha256()
    for name in ids:
        found.update(hashed(name))
    return found.hexdigest()[:32]


def finished(place: Place, shard: int, retry: bool = False) -> bool:
    """Whether a shard is done: nothing of its plan is left. retry: nor anything that failed."""
    done = head(place.manifest(shard))
    plan = head(place.plan(shard))
    if done is None or plan is None or done.get("plan") != plan["plan"]:
        return False
    return not (retry and done["failed"])
