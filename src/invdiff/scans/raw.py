"""ISMRMRD raw data (Inati et al. 2017): the header, and the readouts of one slice.

The layout is the format's: the group holds `data`, records of head, trajectory and interleaved
real and imaginary parts, and `xml`, a header.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import noise_from_scan
from invdiff.scans.files import check_size, inside

NOISE, CALIBRATION, REVERSE = 19, 20, 22
OTHER = (23, 24, 26, 27, 28, 29, 30, 31)
"""Flags of readouts, bits counted from 1: OTHER are navigators, corrections and dummies."""
FIRST_OF = ("contrast", "phase", "repetition", "set")
"""Counters of which the first value is read."""


@dataclass(frozen=True)
class Header:
    """Of the first encoding: its kind, matrix sizes (x, y, z), fields of view (x, y, z) in mm (0
    where it tells none), and the steps at the middle of k-space; None where it tells none."""

    kind: str
    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    encoded_mm: tuple[float, float, float]
    recon_mm: tuple[float, float, float]
    centres: tuple[int | None, int | None]

    def centre(self, step: int) -> int:
        """The step 1 or 2 at the middle of k-space."""
        told = self.centres[step - 1]
        return self.encoded[step] // 2 if told is None else told


@dataclass(frozen=True, eq=False)
class Readouts:
    """Readouts of one slice: records and heads of the file, which of them, and what was chosen."""

    path: Path
    header: Header
    records: Any
    heads: np.ndarray
    lines: np.ndarray
    noise: Tensor | None
    facts: tuple[str, ...]

    def samples(self, k: int) -> np.ndarray:
        """Those of the readout k that count, (coils, samples) complex64."""
        start, stop = self.span(k)
        return _samples(self.records, self.heads, k, self.path)[:, start:stop]

    def span(self, k: int) -> tuple[int, int]:
        """The first sample of the readout k that counts, and the one behind the last."""
        head = self.heads[k]
        start = int(head["discard_pre"])
        stop = int(head["number_of_samples"]) - int(head["discard_post"])
        if not start < stop:
            raise InvdiffError(f"Readout {k} of {self.path} discards all of its samples.")
        return start, stop

    @property
    def coils(self) -> int:
        return int(self.heads["active_channels"][self.lines[0]])


def readouts(path: Path, group: Any, header: Header, slice_: int | None) -> Readouts:
    """The readouts of one slice, the middle one for None; of a single slab where there are three
    dimensions. Raises InvdiffError when there are none, or when they run backwards."""
    records = inside(group["data"], path)
    check_size(records.shape, records.dtype["head"].itemsize, f"data in {path}")
    heads = records.fields("head")[:]
    flags = heads["flags"]

    def flagged(*bits: int) -> np.ndarray:
        return np.logical_or.reduce([(flags >> np.uint64(b - 1)) & 1 == 1 for b in bits])

    noise = _covariance(records, heads, np.flatnonzero(flagged(NOISE)), path)
    skipped = flagged(NOISE, CALIBRATION, *OTHER)
    image = np.flatnonzero(~skipped)
    slabs = len(np.unique(heads["idx"]["slice"][image]))
    if header.encoded[2] > 1 and slabs > 1:
        raise InvdiffError(f"{path} holds {slabs} slabs of a 3-D measurement; give one of them.")
    lines, told = _chosen(heads, image, slice_, path)
    if header.encoded[2] > 1:
        told = told[1:]
    if flagged(REVERSE)[lines].any():
        raise InvdiffError(
            f"{path} holds readouts that run backwards (EPI), which need a phase correction; "
            "correct them first."
        )
    facts = ["ISMRMRD raw data", *told]
    aside = int((skipped & ~flagged(NOISE)).sum())
    facts += [f"{aside} calibration, navigator and other readouts were left out"] * (aside > 0)
    facts += ["noise covariance from noise scans, not applied"] * (noise is not None)
    r = Readouts(path, header, records, heads, lines, noise, tuple(facts))
    if (heads["active_channels"][lines] != r.coils).any() or r.coils < 1:
        raise InvdiffError(f"Readouts of {path} have different numbers of coils.")
    return r


def read_header(group: Any, path: Path) -> Header:
    """The first encoding of the XML header."""
    text = inside(group["xml"], path)[()]
    text = text[0] if isinstance(text, np.ndarray) else text
    encoding = ElementTree.fromstring(text).find("{*}encoding")
    if encoding is None:
        raise InvdiffError(f"{path} tells of no encoding in its header.")
    found = encoding

    def told(where: str) -> str | None:
        return found.findtext("/".join("{*}" + part for part in where.split("/")))

    def size(space: str) -> tuple[int, int, int]:
        x, y, z = (int(told(f"{space}/matrixSize/{a}") or 0) for a in "xyz")
        if min(x, y, z) < 1:
            raise InvdiffError(f"{path} tells no size of its {space} in its header.")
        return x, y, z

    def mm(space: str) -> tuple[float, float, float]:
        x, y, z = (float(told(f"{space}/fieldOfView_mm/{a}") or 0) for a in "xyz")
        return x, y, z

    def centre(step: int) -> int | None:
        text = told(f"encodingLimits/kspace_encoding_step_{step}/center")
        return None if text is None else int(text)

    kind = (told("trajectory") or "").strip()
    spaces = size("encodedSpace"), size("reconSpace"), mm("encodedSpace"), mm("reconSpace")
    return Header(kind, *spaces, (centre(1), centre(2)))


def _chosen(
    heads: np.ndarray, lines: np.ndarray, slice_: int | None, path: Path
) -> tuple[np.ndarray, list[str]]:
    """The readouts of one slice and of the first contrast, and so on, and what was chosen."""
    if not len(lines):
        raise InvdiffError(f"{path} holds no readout of an image.")
    told = []
    slices = np.unique(heads["idx"]["slice"][lines])
    wanted = slices[len(slices) // 2] if slice_ is None else slice_
    if wanted not in slices:
        raise InvdiffError(
            f"{path} holds slices {slices.min()} to {slices.max()}; there is no slice {slice_}."
        )
    middle = ", the middle one" if slice_ is None else ""
    told += [f"slice {wanted} of {len(slices)}{middle}"]
    lines = lines[heads["idx"]["slice"][lines] == wanted]
    for name in FIRST_OF:
        values = np.unique(heads["idx"][name][lines])
        if len(values) > 1:
            lines = lines[heads["idx"][name][lines] == values[0]]
            told.append(f"{name} {values[0]} of {len(values)}")
    return lines, told


def _samples(records: Any, heads: np.ndarray, k: int, path: Path) -> np.ndarray:
    """The readout k, (coils, samples) complex64."""
    head = heads[k]
    shape = int(head["active_channels"]), int(head["number_of_samples"])
    values = np.ascontiguousarray(records[k]["data"], np.float32)
    if values.size != 2 * shape[0] * shape[1]:
        raise InvdiffError(
            f"Readout {k} of {path} has {values.size} numbers, but its header tells of {shape[0]} "
            f"coils with {shape[1]} complex samples."
        )
    return values.view(np.complex64).reshape(shape)


def _covariance(records: Any, heads: np.ndarray, lines: np.ndarray, path: Path) -> Tensor | None:
    """Covariance of the coils by `noise_from_scan`, None where there are no noise scans."""
    if not len(lines):
        return None
    n = np.concatenate([_samples(records, heads, k, path) for k in lines], axis=1)
    if not np.isfinite(n.view(np.float32)).all() or n.shape[1] < 10 * len(n):
        raise InvdiffError(f"The noise scans of {path} are too short, or hold NaN.")
    cov = noise_from_scan(torch.from_numpy(n)).value
    assert isinstance(cov, Tensor)
    return cov.to(torch.complex64)
