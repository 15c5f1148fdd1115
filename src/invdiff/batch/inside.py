"""Files that hold several items: tar files, parquet files, TIFF files, animations, videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from invdiff.batch import archives, tables
from invdiff.core import InvdiffError
from invdiff.files import frames

T = TypeVar("T")
BROKEN = "broken"
"""Of a file that could not be looked into: the sentence that tells why."""


def members(
    item: Any, make: Callable[[str, str, dict[str, Any]], T], column: str | None, paged: bool
) -> Iterator[T]:
    """The items in the file of an item; the item itself where that holds but one.

    column: of parquet files. paged: whether pages of a TIFF and frames are items. Raises
    InvdiffError for a file that cannot be looked into.
    """
    ending = Path(item.path).suffix.lower()
    found: Iterator[tuple[str, dict[str, Any]]]
    if ending in archives.TARS:
        found = archives.members(item.path)
    elif ending in tables.TABLES:
        found = tables.rows(item.path, column)
    elif paged and ending in frames.SEVERAL:
        found = frames.frames(item.path)
        first = next(found, None)
        if first is None:
            yield item
            return
        yield make(f"{item.id}/{first[0]}", item.path, first[1])
    else:
        yield item
        return
    for name, at in found:
        yield make(f"{item.id}/{name}", item.path, at)


def members_or_sentence(
    item: Any, make: Callable[[str, str, dict[str, Any]], T], column: str | None, paged: bool
) -> Iterator[T]:
    """`members`; a file among others that cannot be looked into becomes an item that fails."""
    try:
        yield from members(item, make, column, paged)
    except InvdiffError as error:
        yield make(item.id, item.path, {BROKEN: str(error)})


def unpacked(path: str, within: dict[str, Any], folder: Path) -> Path:
    """An item, with what lies beside it in its file, as files in a folder; the path of the item.

    Raises InvdiffError where the file is no longer there, or cut.
    """
    if BROKEN in within:
        raise InvdiffError(within[BROKEN])
    if "series" in within:
        return Path(path)  # its reader chooses
    if "page" in within or "frame" in within:
        return frames.unpacked(path, within, folder)
    reads = tables.unpacked if "row" in within else archives.unpacked
    return reads(path, within, folder)


def shared(within: dict[str, Any]) -> bool:
    """Whether what lies beside an item is in the same file, as with members of a tar."""
    return "member" in within or "row" in within
