"""Arrays of k-space: one image out of any order of axes, and questions where the order is open."""

from __future__ import annotations

from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.asked import PARTS, Asked, chosen_of
from invdiff.scans.files import check_size
from invdiff.scans.plausible import check_channels, check_domain, check_lengths

COUNTER_OF = {
    "slices": "slice",
    "echoes": "echo",
    "times": "time",
    "phases": "phase",
    "sets": "set",
}
"""Axes along which there are several images, and what one of them is asked for by."""
Counts = dict[str, tuple[int, ...]]
"""What a file holds several images by, and the numbers of these images."""
FRONT = {2: ("y", "x"), 3: ("coils", "y", "x"), 4: ("slices", "coils", "y", "x")}
"""Axes of numpy arrays and HDF5 files, by their number."""
BACK = {
    2: ("y", "x"),
    3: ("y", "x", "coils"),
    4: ("y", "x", "coils", "slices"),
    5: ("y", "x", "coils", "slices", "times"),
}
"""Axes of MATLAB's arrays, as MATLAB counts them."""


def named_axes(
    array: Any, asked: Asked, what: str, usual: dict[int, tuple[str, ...]], first: str = "coils"
) -> tuple[str, ...]:
    """Names of all axes of an array, with PARTS where the numbers are real.

    usual: names by the number of axes; first: what the odd one of three is without --first.
    Raises InvdiffError for real numbers without such an axis, and for a number of axes that has no
    names.
    """
    shape, complex_ = tuple(array.shape), is_complex(array.dtype)
    if not complex_ and (len(shape) < 3 or shape[-1] != 2):
        where = " (an axis of length 2, the parts of complex numbers, has to be the last)"
        raise InvdiffError(
            f"{what} holds {array.dtype} and not complex numbers; join real and imaginary parts"
            f"{where if 2 in shape[:-1] else ''}."
        )
    parts: tuple[str, ...] = () if complex_ else (PARTS,)
    n = len(shape) - len(parts)
    if asked.axes is not None:
        if len(asked.axes) != n:
            raise InvdiffError(
                f"{what} has {n} axes, of {_sizes(shape[:n])}, but --axes names {len(asked.axes)}: "
                f"{','.join(asked.axes)}."
            )
        return asked.axes + parts
    if n not in usual:
        known = " or ".join(f"({', '.join(names)})" for names in usual.values())
        raise InvdiffError(
            f"{what} has shape {shape}; k-space is {known}; name the axes of others, as --axes "
            "times,slices,coils,y,x."
        )
    names = usual[n]
    odd = asked.first or first
    return tuple(odd if n == 3 and name == "coils" else name for name in names) + parts


def image_of(
    array: Any, names: tuple[str, ...], asked: Asked, what: str, told: bool = False
) -> tuple[np.ndarray, tuple[str, ...], Counts]:
    """One image (coils, H, W), complex, of an array with these axes, what was chosen, and which
    images there are.

    Only what is asked for is read. told: whether something else than sizes and values, as a header,
    says what the axes are; then they are not questioned.
    Raises InvdiffError where another reading of the axes is the likely one.
    """
    shape = tuple(array.shape)
    check_size(shape, 0, what)
    open_ = asked.axes is None and not told
    if open_:
        check_lengths(shape, names, what)
    index, facts = list[Any](), list[str]()
    counts: Counts = {}
    if "z" in names and "slices" in names:
        raise InvdiffError(f"{what} has slices and three dimensions; cut out one slab.")
    there = {COUNTER_OF.get(name, "slice" if name == "z" else "") for name in names}
    for counter in COUNTER_OF.values():
        if counter not in there and asked.index(counter) is not None:
            chosen_of(counter, 1, asked.index(counter), what)
    for name, n in zip(names, shape, strict=True):
        if name in COUNTER_OF:
            chosen, fact = chosen_of(COUNTER_OF[name], n, asked.index(COUNTER_OF[name]), what)
            index.append(chosen)
            facts += [fact] * (n > 1)
            counts[COUNTER_OF[name]] = tuple(range(n))
        else:
            index.append(np.s_[:])
    if open_ and asked.first is None:
        check_channels(array, names, what, lambda part: as_complex(part, names))
    left = tuple(name for name in names if name not in COUNTER_OF)
    kept = [n for n, name in zip(shape, names, strict=True) if name not in COUNTER_OF]
    check_size(tuple(kept), array.dtype.itemsize, what)
    k = as_complex(np.asarray(array[tuple(index)]), left)
    left = tuple(name for name in left if name != PARTS)
    if "averages" in left:
        k, left = _averaged(k, left), tuple(name for name in left if name != "averages")
    if "coils" not in left:
        k, left = k[None], ("coils", *left)
    if "z" in left:
        k, left, fact, n = _deep(k, left, asked, what)
        facts.append(fact)
        counts["slice"] = tuple(range(n))
    k = k.transpose([left.index(name) for name in ("coils", "y", "x")])
    if asked.origin is None:
        check_domain(k, what)
    return k, tuple(facts), counts


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Whether numbers are complex, also as pairs called real and imag (of MATLAB's HDF5 files)."""
    return dtype.kind == "c" or bool(dtype.names and set(dtype.names) == {"real", "imag"})


def as_complex(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Complex numbers of pairs, of a last axis of parts, or as they are."""
    if values.dtype.names:
        return np.asarray(values["real"] + 1j * values["imag"], np.complex64)
    if PARTS in names:
        return np.asarray(values[..., 0] + 1j * values[..., 1], np.complex64)
    return values


def _averaged(k: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Means along the axis of averages, of what was sampled: what is not 0."""
    axis = names.index("averages")
    counts = (k != 0).sum(axis)
    return np.asarray(k.sum(axis) / np.maximum(counts, 1))


def _deep(
    k: np.ndarray, names: tuple[str, ...], asked: Asked, what: str
) -> tuple[np.ndarray, tuple[str, ...], str, int]:
    """k-space at one position of three dimensions, along the first axis of them that is sampled all
    or not at all: a centred, orthonormal inverse transform along it."""
    space = [name for name in names if name in ("z", "y", "x")]
    mask = (k != 0).any(names.index("coils"))
    deep = tuple(name for name in names if name != "coils")
    full = [
        name for name in space
        if bool((mask == mask.any(deep.index(name), keepdims=True)).all())
    ]  # fmt: skip
    if not full:
        raise InvdiffError(
            f"{what} is k-space of three dimensions, none of which is fully sampled; transform it "
            "along one, or reconstruct it by a program for three dimensions."
        )
    along = full[0]
    axis = names.index(along)
    n = k.shape[axis]
    chosen, fact = chosen_of("slice", n, asked.slice, what)
    turns = (np.arange(n) - n // 2) * (chosen - n // 2) / n
    wave = (np.exp(2j * np.pi * turns) / np.sqrt(n)).astype(np.complex64)
    k = np.tensordot(k, wave, (axis, 0))
    left = [name for name in names if name != along]
    rows, columns = (name for name in space if name != along)
    left = [{rows: "y", columns: "x"}.get(name, name) for name in left]
    told = f"3-D, transformed along axis {along}, of {n}: {fact}"
    return k, tuple(left), told, n


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
