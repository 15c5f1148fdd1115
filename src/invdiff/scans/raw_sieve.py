"""Which readouts of ISMRMRD raw data belong to one image: every field that says otherwise counts.

A file holds noise scans, calibration lines, navigators and several images beside each other. What a
head says of a readout decides; what is left out is counted, and told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.asked import Asked
from invdiff.scans.raw_header import Header

NOISE, CALIBRATION, BOTH, REVERSE = 19, 20, 21, 22
"""Flags of readouts, bits counted from 1: noise scans, calibration lines, calibration lines that
are lines of the image too, and readouts that run backwards."""
OTHER = (23, 24, 26, 27, 28, 29, 30, 31)
"""Navigators, corrections, dummies and feedback."""
USER = tuple(range(57, 65))
"""Flags that have no meaning in the format."""
COUNTERS = {"contrast": "echo", "phase": "phase", "repetition": "time", "set": "set"}
"""Counters of a head that tell images apart, and what they are asked for by."""
TURNED = 0.99
"""Cosine below which two readouts have another orientation (8 degrees)."""


class Sieve:
    """Readouts that are left: their numbers, and phrases on what was chosen and left out."""

    def __init__(self, heads: np.ndarray, lines: np.ndarray, what: str = "readouts") -> None:
        self.heads, self.lines, self.what = heads, lines, what
        self.told: list[str] = []
        self.counts: dict[str, tuple[int, ...]] = {}

    @property
    def left(self) -> np.ndarray:
        """The heads of what is left."""
        return self.heads[self.lines]

    def keep(self, good: np.ndarray, reason: str) -> None:
        """Leave out all but the good ones, and count them."""
        out = int((~good).sum())
        if out:
            self.lines = self.lines[good]
            self.told.append(f"{out} {self.what} {reason} were left out")

    def keep_usual(self, values: np.ndarray, reason: str) -> None:
        """Leave out those whose value (n,) or (n, k) is not that of most."""
        if len(self.lines):
            self.keep(usual(values), reason)


def usual(values: np.ndarray) -> np.ndarray:
    """Whether each row has the value of most; of several the one that comes first."""
    _, first, back, counts = np.unique(
        values, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    most = np.flatnonzero(counts == counts.max())
    chosen = most[np.argmin(first[most])]
    found: np.ndarray = back.reshape(-1) == chosen
    return found


def flagged(heads: np.ndarray, *bits: int) -> np.ndarray:
    """Which of the heads have any of these flags."""
    flags = heads["flags"]
    return np.logical_or.reduce([(flags >> np.uint64(b - 1)) & np.uint64(1) == 1 for b in bits])


def image_lines(
    heads: np.ndarray, header: Header, asked: Asked, path: Path, grid: bool
) -> tuple[np.ndarray, tuple[str, ...], dict[str, tuple[int, ...]]]:
    """The readouts of one image, what was chosen and left out, and which images there are.

    grid: whether they are lines of a Cartesian grid, whose spans have to fit each other.
    Raises InvdiffError where none is left, and for an image that is not there.
    """
    skipped = flagged(heads, NOISE, CALIBRATION, *OTHER)
    s = Sieve(heads, np.flatnonzero(~skipped))
    if not len(s.lines):
        raise InvdiffError(f"{path} holds no readout of an image.")
    spaces = np.unique(s.left["encoding_space_ref"])
    s.keep(s.left["encoding_space_ref"] == header.number, "of other encodings (--encoding)")
    if not len(s.lines):
        held = ", ".join(map(str, spaces))
        raise InvdiffError(
            f"{path} holds no readout of an image of its encoding {header.number}, but of {held}; "
            f"give --encoding {spaces[0]}."
        )
    deep = header.encoded[2] > 1
    _one_slice(s, None if deep else asked.slice, deep, path)
    for counter, name in COUNTERS.items():
        _one_of(s, counter, name, asked.index(name), path)
    _same(s, deep)
    if grid:
        _spans(s)
    return s.lines, tuple(s.told), s.counts


def _one_slice(s: Sieve, wanted: int | None, deep: bool, path: Path) -> None:
    """The readouts of one slice, the middle one for None; of the only slab of three dimensions."""
    found = np.unique(s.left["idx"]["slice"])
    if deep and len(found) > 1:
        raise InvdiffError(f"{path} holds {len(found)} slabs of a 3-D measurement; give one.")
    chosen = found[len(found) // 2] if wanted is None else wanted
    if chosen not in found:
        raise InvdiffError(
            f"{path} holds slices {found.min()} to {found.max()}; there is no slice {wanted}."
        )
    if not deep:
        middle = ", the middle one" if wanted is None else ""
        s.told.append(f"slice {chosen} of {len(found)}{middle}")
        s.counts["slice"] = tuple(map(int, found))
    s.lines = s.lines[s.left["idx"]["slice"] == chosen]


def _one_of(s: Sieve, counter: str, name: str, wanted: int | None, path: Path) -> None:
    """The readouts of one value of a counter, the first for None."""
    found = np.unique(s.left["idx"][counter])
    if wanted is not None and not 0 <= wanted < len(found):
        raise InvdiffError(
            f"{path} holds {len(found)} of its counter {counter}, from 0; there is no {name} "
            f"{wanted}."
        )
    chosen = found[wanted or 0]
    s.counts[name] = tuple(range(len(found)))
    if len(found) > 1:
        s.told.append(f"{counter} {chosen} of {len(found)}")
        s.lines = s.lines[s.left["idx"][counter] == chosen]


def _same(s: Sieve, deep: bool) -> None:
    """Leave out what differs from most by its user flags, coils, dwell time or orientation."""
    marked = flagged(s.left, *USER)
    if marked.any() and not marked.all():
        s.keep(~marked, "with user flags")
    elif marked.all():
        s.keep_usual(s.left["flags"] >> np.uint64(USER[0] - 1), "with other user flags")
    s.keep_usual(s.left["active_channels"], "of other coils")
    s.keep_usual(s.left["channel_mask"], "of other coils")
    times = s.left["sample_time_us"]
    if (times > 0).any():
        most = times[times > 0][usual(times[times > 0])][0]
        s.keep((times <= 0) | (np.abs(times - most) <= 1e-3 * most), "of another dwell time")
    if not deep:
        s.keep_usual(s.left["idx"]["kspace_encode_step_2"], "of another partition")
    for name in ("read_dir", "phase_dir", "slice_dir"):
        along = np.asarray(s.left[name], np.float64)
        size = np.linalg.norm(along, axis=1)
        if (size > 0).any():
            unit = np.divide(
                along, size[:, None], where=size[:, None] > 0, out=np.zeros_like(along)
            )
            most = unit[size > 0][usual(np.round(unit[size > 0], 2))][0]
            s.keep((size == 0) | (unit @ most >= TURNED), "of another orientation")


def _spans(s: Sieve) -> None:
    """Leave out lines whose samples lie elsewhere than those of most.

    A partial echo ends, or begins, where the others do; what does neither is a line of another
    image, as of a reference scan of low resolution.
    """
    heads = s.left
    begin = heads["discard_pre"].astype(int) - heads["center_sample"]
    end = heads["number_of_samples"].astype(int) - heads["discard_post"] - heads["center_sample"]
    most = usual(np.stack([begin, end], 1))
    a, b = begin[most][0], end[most][0]
    s.keep((begin == a) | (end == b), "whose samples contradict the encoding")


def calibration_lines(
    heads: np.ndarray, lines: np.ndarray, header: Header, same: Any
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The calibration lines for an image that consists of `lines`, and what was left out.

    same(encoding): whether the grid of another encoding has the same field of view. Of several
    contrasts, phases, repetitions and sets those of the image are taken, else the first.
    """
    s = Sieve(heads, np.flatnonzero(flagged(heads, CALIBRATION)), "calibration lines")
    s.keep(~flagged(s.left, NOISE, REVERSE, *OTHER), "that are corrections")
    image = heads[lines[0]]
    refs = s.left["encoding_space_ref"]
    own = refs == header.number
    fits = np.array([bool(same(int(r))) for r in refs], bool) if len(refs) else own
    s.keep(own if own.any() else fits, "of another field of view")
    s.keep(s.left["idx"]["slice"] == image["idx"]["slice"], "of other slices")
    for name in COUNTERS:
        found = s.left["idx"][name]
        if len(found):
            mine = image["idx"][name]
            s.keep(found == (mine if (found == mine).any() else found.min()), f"of another {name}")
    s.keep(s.left["active_channels"] == image["active_channels"], "of other coils")
    s.keep(s.left["channel_mask"] == image["channel_mask"], "of other coils")
    return s.lines, tuple(s.told)
