"""Animations and videos of a batch: all frames that were restored, together again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

from invdiff.batch.place import Place, lines, unwritable
from invdiff.core import InvdiffError
from invdiff.core.durable import own_folder
from invdiff.files.animation import pace_of, write_together

SHOWN = ("estimate.png", "mean.png")
"""Which picture of an item is shown: the first that there is."""


def clips(place: Place) -> dict[str, tuple[str, int]]:
    """(path, number of frames) of the animations and videos of a batch, by their names."""
    found = dict[str, tuple[str, int]]()
    for shard in range(place.told()["shards"]):
        for item in lines(place.plan(shard)):
            if "frame" in item.get("within", {}):
                name = str(PurePosixPath(item["id"]).parent)
                found[name] = (item["path"], found.get(name, ("", 0))[1] + 1)
    return dict(sorted(found.items()))


def animated(place: Place) -> tuple[list[Path], list[str]]:
    """Write OUT/videos; the files, and a sentence for each that cannot be written.

    Raises StoppedError where nothing can be written.
    """
    done, said = list[Path](), list[str]()
    for name, (path, count) in clips(place).items():
        target = place.out / "videos" / name
        try:
            _write(place, name, path, count, target)
        except InvdiffError as error:
            said.append(f"{name} is left out: {error}")
        except OSError as error:
            raise unwritable(target.parent, error) from error
        else:
            done.append(target)
    return done, said


def _write(place: Place, name: str, path: str, count: int, target: Path) -> None:
    """One of them, in one move. Raises InvdiffError where a frame of it failed."""
    pictures = list[Path]()
    for number in range(count):
        item = place.items / name / f"frame-{number:05}"
        shown = next((item / n for n in SHOWN if (item / n).is_file()), None)
        if shown is None:
            raise InvdiffError(f"its frame {number} was not restored; see the report.")
        pictures.append(shown)
    part = own_folder(place.out / "work")
    try:
        write_together(part / target.name, pace_of(path), pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part / target.name, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
