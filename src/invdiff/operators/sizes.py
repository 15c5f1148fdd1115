"""Sizes and counts that operators are given."""

from __future__ import annotations

import numbers
from typing import Any

from invdiff.core import InvdiffError

LONGEST_SIDE = 1_000_000
"""Pixels of a side, and bins of a detector, at most."""


def whole(n: Any) -> bool:
    """Whether n is a whole number above 0."""
    return isinstance(n, numbers.Integral) and int(n) > 0


def checked_size(size: Any) -> tuple[int, int]:
    """size as (height, width); InvdiffError unless it is two whole numbers from 1 to a million."""
    size = tuple(size)
    if len(size) != 2 or not all(whole(n) and n <= LONGEST_SIDE for n in size):
        raise InvdiffError(
            f"An image size is (height, width) in whole pixels, 1 to 1000000, found {size}."
        )
    return int(size[0]), int(size[1])


def check_count(what: str, n: Any, most: int = 100_000) -> None:
    """Raise InvdiffError unless n, a number of `what`, is a whole number from 1 to `most`."""
    if not whole(n) or n > most:
        raise InvdiffError(f"A number of {what} is a whole number from 1 to {most}, found {n}.")


def check_iterations(n: int, tol: float) -> None:
    """Raise InvdiffError unless n bounds iterations, and tol is a relative residual below 1."""
    if not whole(n):
        raise InvdiffError(f"cg_iterations is a whole number above 0, found {n}.")
    if isinstance(tol, bool) or not isinstance(tol, int | float) or not 0 <= tol < 1:
        raise InvdiffError(f"cg_tol is a number from 0, for round-off, to below 1, found {tol}.")


def check_image(name: str, size: tuple[int, int], x_shape: tuple[int, ...]) -> None:
    """Raise InvdiffError unless images of shape x_shape (C, ..., H, W) are of the given size."""
    if len(x_shape) < 3 or tuple(x_shape[-2:]) != size:
        raise InvdiffError(
            f"{name} was made for images of {size[0]} x {size[1]} pixels, found images of shape "
            f"{tuple(x_shape)}; make the operator with the size of the images."
        )
