"""Pages of a TIFF as items: which there are, and one alone, with all its tags, as a file.

A page is a directory of tags and what these point to (TIFF 6.0, section 2; BigTIFF has wider
numbers). One alone is a copy of these parts at the same places in a file that is otherwise empty,
whose header points to the directory: nothing is decoded, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from invdiff.core import InvdiffError
from invdiff.files.ends import cut_off

TIFFS = (".tif", ".tiff")
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
         17: 8, 18: 8}  # fmt: skip
"""Bytes of a value, by its type."""
WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of whole numbers."""
DATA = ((273, 279), (324, 325), (513, 514))
"""Tags for the places and the lengths of strips, of tiles, and of JPEG data."""
INNER = (330, 34665, 34853, 40965)
"""Tags that point to directories within: smaller pages, EXIF, GPS."""
REDUCED = 5
"""Bits of NewSubfileType: a reduced picture, a mask of transparency."""
MOST, WITHIN = 100_000, 100
"""Pages of a file, and directories within a page, that are looked at."""
BLOCK = 2**20


@dataclass(frozen=True)
class _Directory:
    """at, size: place and bytes. tags: (type, count, place of the values). after: place of the
    pointer to the next one."""

    at: int
    size: int
    tags: dict[int, tuple[int, int, int]]
    after: int


class _Tiff:
    """An open TIFF. Raises ValueError, or struct.error, for what is none."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, start = file, os.fstat(file.fileno()).st_size, file.read(4)
        self.order = {b"II": "<", b"MM": ">"}.get(start[:2], "")
        if not self.order or start[2:] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
            raise ValueError("no TIFF")
        self.big = b"+" in start[2:]
        self.word, self.first = ("Q", 8) if self.big else ("I", 4)

    def numbers(self, at: int, kind: str, count: int = 1) -> tuple[int, ...]:
        """Whole numbers at a place."""
        form = f"{self.order}{count}{kind}"
        size = struct.calcsize(form)
        if at + size > self.size:
            raise ValueError("it ends before a tag's values")
        self.file.seek(at)
        return struct.unpack(form, self.file.read(size))

    def directory(self, at: int) -> _Directory:
        """The directory at a place."""
        head, entry = (8, 20) if self.big else (2, 12)
        (count,) = self.numbers(at, "Q" if self.big else "H")
        if not 0 < count < MOST:
            raise ValueError("a directory of no tags")
        width, tags = struct.calcsize(f"={self.word}"), {}
        for place in range(at + head, at + head + count * entry, entry):
            tag, kind = self.numbers(place, "H", 2)
            (number,) = self.numbers(place + 4, self.word)
            value = place + 4 + width
            if SIZES.get(kind, 1) * number > width:
                (value,) = self.numbers(value, self.word)
            tags[tag] = (kind, number, value)
        after = at + head + count * entry
        return _Directory(at, head + count * entry + width, tags, after)

    def values(self, found: _Directory, tag: int) -> tuple[int, ...]:
        """The whole numbers of a tag; none without it."""
        kind, count, at = found.tags.get(tag, (0, 0, 0))
        return self.numbers(at, WHOLE[kind], count) if kind in WHOLE else ()

    def directories(self) -> Iterator[_Directory]:
        """The pages, one after the other."""
        seen = set[int]()
        (at,) = self.numbers(self.first, self.word)
        while at and at not in seen and len(seen) < MOST:
            seen.add(at)
            found = self.directory(at)
            yield found
            (at,) = self.numbers(found.after, self.word)

    def parts(self, found: _Directory, seen: set[int]) -> Iterator[tuple[int, int]]:
        """Place and bytes of a directory and of all that it points to. seen: those that were."""
        seen.add(found.at)
        yield found.at, found.size
        for kind, count, at in found.tags.values():
            yield at, SIZES.get(kind, 1) * count
        for places, lengths in DATA:
            yield from zip(self.values(found, places), self.values(found, lengths), strict=False)
        for tag in INNER if len(seen) < WITHIN else ():
            for at in set(self.values(found, tag)) - seen:
                with contextlib.suppress(ValueError, struct.error):
                    yield from self.parts(self.directory(at), seen)


def pages(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, where) of the pages of a TIFF that are not reduced ones; none where it has but one,
    or cannot be read, which its reader tells.

    Raises InvdiffError, after the pages that are there, where the next one is not.
    """
    found, count, broken = list[int](), 0, False
    try:
        with open(path, "rb") as file:
            tiff = _Tiff(file)
            for page in tiff.directories():
                if not any(bits & REDUCED for bits in tiff.values(page, 254)):
                    found.append(count)
                count += 1
    except (OSError, ValueError, struct.error):
        broken = count > 0
    if len(found) > 1 or broken:
        for number in found:
            yield f"page-{number:03}", {"page": number}
    if broken:
        raise cut_off(path, count, "page")


def unpacked(path: str, page: int, folder: Path) -> Path:
    """A page as a TIFF of its own in a folder. Raises InvdiffError where there is none."""
    target = folder / f"page-{page:03}.tif"
    try:
        with open(path, "rb") as file, open(target, "wb") as to:
            tiff = _Tiff(file)
            found = next((d for n, d in enumerate(tiff.directories()) if n == page), None)
            if found is None:
                raise ValueError(f"it has no page {page}")
            for at, length in [(0, tiff.first), *tiff.parts(found, set())]:
                if at < tiff.size:
                    _copy(file, to, at, min(length, tiff.size - at))
            for at, value in ((tiff.first, found.at), (found.after, 0)):
                to.seek(at)
                to.write(struct.pack(f"{tiff.order}{tiff.word}", value))
            to.truncate(tiff.size)
    except OSError as error:
        if error.filename == path:
            raise InvdiffError(f"{path} cannot be read ({error.strerror}).") from None
        raise
    except (ValueError, struct.error) as error:
        raise InvdiffError(f"{path} is a broken TIFF ({error}); save it once more.") from None
    return target


def _copy(file: BinaryIO, to: BinaryIO, at: int, length: int) -> None:
    """Copy bytes to the same place of another file."""
    file.seek(at)
    to.seek(at)
    while length > 0 and (block := file.read(min(BLOCK, length))):
        to.write(block)
        length -= len(block)
