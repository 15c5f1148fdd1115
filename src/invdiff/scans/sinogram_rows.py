"""One detector row of what a file holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.files import taken


@dataclass(frozen=True, eq=False)
class Found:
    """What a file holds of one row: data (views, bins), fields (repeats, bins), angles, and how
    far a fan's source is, in bins. plain: whether the format says nothing of its numbers."""

    data: np.ndarray
    white: np.ndarray | None
    dark: np.ndarray | None
    theta: np.ndarray | None
    unit: str | None
    facts: tuple[str, ...]
    plain: bool = True
    source: float | None = None


def row_of(array: Any, row: int | None, what: str) -> tuple[np.ndarray, int | None, int]:
    """One detector row of (views, bins) or (views, rows, bins): it, its number, and of how many."""
    shape = tuple(array.shape)
    if array.dtype.kind == "c" or len(shape) not in (2, 3):
        raise InvdiffError(
            f"{what} has shape {shape} of {array.dtype}; a sinogram holds real numbers, "
            "(views, bins) or (views, rows, bins)."
        )
    if len(shape) == 2:
        if row not in (None, 0):
            raise InvdiffError(f"{what} has one detector row, 0; there is no row {row}.")
        return taken(array, (), shape, what), None, 1
    rows = shape[1]
    if rows < 1 or (row is not None and not 0 <= row < rows):
        raise InvdiffError(f"{what} has {rows} rows, counted from 0; there is no row {row}.")
    chosen = rows // 2 if row is None else row
    part = taken(array, (slice(None), chosen), (shape[0], shape[2]), what)
    return part, chosen, rows


def told_row(row: int | None, rows: int, asked: int | None) -> tuple[str, ...]:
    """The row in words; nothing where there is one."""
    if row is None:
        return ()
    return (f"detector row {row} of {rows}" + (", the middle one" if asked is None else ""),)
