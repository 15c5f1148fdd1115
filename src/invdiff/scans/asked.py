"""Which image of a file of k-space is asked for, and how its array is to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from invdiff.core import InvdiffError

First = Literal["slices", "coils"]
Origin = Literal["centre", "corner"]

COUNTERS = ("slice", "echo", "time", "phase", "set")
"""Names of what a file may hold several images by."""
NAMES = ("y", "x", "z", "coils", "slices", "echoes", "times", "phases", "sets", "averages")
"""Names of the axes of an array, as `--axes` takes them: y are the rows of k-space; z makes it one
of three dimensions."""
PARTS = "real and imaginary"
"""Name of a last axis of two, the parts of complex numbers."""


@dataclass(frozen=True)
class Asked:
    """key: name of the array. slice, echo, time, phase, set: which one, from 0; None takes the
    slice in the middle and the first of the others. encoding: of raw data, from 0.
    first: what the first of three axes is. axes: names of all axes, of NAMES. origin: where the
    zero frequency stands. crop: remove the oversampling of the readout."""

    key: str | None = None
    slice: int | None = None
    echo: int | None = None
    time: int | None = None
    phase: int | None = None
    set: int | None = None
    encoding: int | None = None
    first: First | None = None
    axes: tuple[str, ...] | None = None
    origin: Origin | None = None
    crop: bool = True

    def index(self, counter: str) -> int | None:
        """The one of COUNTERS that is asked for."""
        found: int | None = getattr(self, counter)
        return found


def parse_axes(text: str) -> tuple[str, ...]:
    """Names of axes from the first to the last, as `coils,y,x`. Raises InvdiffError."""
    names = tuple(word.strip().lower() for word in text.split(","))
    wrong = [name for name in names if name not in NAMES]
    if wrong or len(set(names)) < len(names) or not {"y", "x"} <= set(names):
        raise InvdiffError(
            f"--axes names every axis of the array once, from {', '.join(NAMES)}, with y (rows) "
            f"and x (columns) among them, as coils,y,x; found {text}."
        )
    return names


def chosen_of(name: str, n: int, index: int | None, what: str) -> tuple[int, str]:
    """Which of n images by one of COUNTERS: the one asked for, else the slice in the middle and the
    first of others; and a fact that says so. Raises InvdiffError where there is none."""
    if n < 1 or (index is not None and not 0 <= index < n):
        many = {"echo": "echoes"}.get(name, f"{name}s") if n != 1 else name
        raise InvdiffError(f"{what} has {n} {many}, counted from 0; there is no {name} {index}.")
    if index is not None:
        return index, f"{name} {index} of {n}"
    chosen, why = (n // 2, "the middle one") if name == "slice" else (0, "the first one")
    return chosen, f"{name} {chosen} of {n}, {why}"
