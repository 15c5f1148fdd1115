"""Counts that users ask for: no larger than memory can hold, told before anything is made."""

from __future__ import annotations

from invdiff.core.errors import InvdiffError

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def limited(who: str, count: int, what: str, most: int, each: float) -> None:
    """Raise InvdiffError where a count is above `most`, with the memory that it would take.

    who: what is asked, as a subject. what: the things that are counted. each: bytes of one.
    """
    if count > most:
        raise InvdiffError(
            f"{who} has at most {most} {what}, found {_written(count)}, which would take "
            f"{in_words(count * each)} of memory; ask for fewer."
        )


def in_words(size: float) -> str:
    """A number of bytes, in the unit that suits it: 3.2 GB."""
    k = 0
    while size >= 1000 and k < len(UNITS) - 1:
        size, k = size / 1000, k + 1
    whole = k == 0 or 10 <= size < 10**6
    return f"{size:.0f} {UNITS[k]}" if whole else f"{size:.2g} {UNITS[k]}"


def _written(count: int) -> str:
    return str(count) if count < 10**9 else f"{float(count):.3g}"
