"""ISMRMRD raw data (Inati et al. 2017): readouts with headers, put in their place in k-space.

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
from invdiff.scans.files import check_size, guarded

NOISE, CALIBRATION, REVERSE = 19, 20, 22
OTHER = (23, 24, 26, 27, 28, 29, 30, 31)
"""Flags of readouts, bits counted from 1: OTHER are navigators, corrections and dummies."""
FIRST_OF = ("contrast", "phase", "repetition", "set")
"""Counters of which the first value is read."""


@dataclass(frozen=True, eq=False)
class Raw:
    """k-space (coils, H, W) and mask (H, W) of one slice, and what a `KSpace` tells beyond."""

    data: np.ndarray
    mask: Tensor
    facts: tuple[str, ...]
    recon: tuple[int, int] | None
    noise: Tensor | None


@dataclass(frozen=True)
class Header:
    """Of the first encoding: matrix sizes (x, y, z), and the step at the middle of k-space."""

    encoded: tuple[int, int, int]
    recon: tuple[int, int]
    centre: int


def read_raw(path: Path, group: Any, slice_: int | None) -> Raw:
    """One slice of a Cartesian 2-D measurement: readout along H, first phase encoding along W.

    Lines that were measured more than once are averaged. Of contrasts, phases, repetitions and sets
    the first is read. Noise scans give the covariance of the coils' noise; it is not applied.
    Raises InvdiffError for other trajectories, for 3-D, and for readouts that run backwards (EPI).
    """
    with guarded(path, "ISMRMRD raw data"):
        header = _header(group, path)
        records = group["data"]
        check_size(records.shape, records.dtype["head"].itemsize, f"data in {path}")
        heads = records.fields("head")[:]
        flags = heads["flags"]

        def flagged(*bits: int) -> np.ndarray:
            return np.logical_or.reduce([(flags >> np.uint64(b - 1)) & 1 == 1 for b in bits])

        noise = _covariance(records, heads, np.flatnonzero(flagged(NOISE)), path)
        skipped = flagged(NOISE, CALIBRATION, *OTHER)
        kept, told = _chosen(heads, np.flatnonzero(~skipped), slice_, path)
        if flagged(REVERSE)[kept].any():
            raise InvdiffError(
                f"{path} holds readouts that run backwards (EPI), which need a phase correction; "
                "correct them first."
            )
        data, counts = _placed(records, heads, kept, header, path)
    facts = ["ISMRMRD raw data", *told]
    aside = int((skipped & ~flagged(NOISE)).sum())
    facts += [f"{aside} calibration, navigator and other readouts were left out"] * (aside > 0)
    repeats = int(counts.max())
    facts += [f"lines measured up to {repeats} times were averaged"] * (repeats > 1)
    facts += ["noise covariance from noise scans, not applied"] * (noise is not None)
    return Raw(data, torch.from_numpy(counts > 0), tuple(facts), header.recon, noise)


def _header(group: Any, path: Path) -> Header:
    """The first encoding of the XML header."""
    text = group["xml"][()]
    text = text[0] if isinstance(text, np.ndarray) else text
    root = ElementTree.fromstring(text)
    encoding = root.find("{*}encoding")
    kind = "" if encoding is None else (encoding.findtext("{*}trajectory") or "")
    if encoding is None or kind.strip() != "cartesian":
        raise InvdiffError(
            f"{path} was measured along a trajectory of kind {kind.strip() or 'unknown'}; only "
            "cartesian raw data is read, for others give samples and trajectory to NonCartesian."
        )

    def size(space: str) -> tuple[int, int, int]:
        x, y, z = (int(encoding.findtext(f"{{*}}{space}/{{*}}matrixSize/{{*}}{a}") or 0)
                   for a in "xyz")  # fmt: skip
        if min(x, y, z) < 1:
            raise InvdiffError(f"{path} tells no size of its {space} in its header.")
        return x, y, z

    encoded, recon = size("encodedSpace"), size("reconSpace")
    if encoded[2] != 1:
        raise InvdiffError(
            f"{path} is a 3-D measurement of {encoded[2]} partitions; transform along the "
            "partitions and give one slice."
        )
    centre = encoding.findtext("{*}encodingLimits/{*}kspace_encoding_step_1/{*}center")
    return Header(encoded, recon[:2], encoded[1] // 2 if centre is None else int(centre))


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


def _placed(
    records: Any, heads: np.ndarray, lines: np.ndarray, header: Header, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """k-space (coils, x, y), means of what was measured, and how often each was measured (x, y)."""
    width, height = header.encoded[:2]
    coils = int(heads["active_channels"][lines[0]])
    check_size((coils, width, height), 8, f"k-space of {path}")
    data = np.zeros((coils, width, height), np.complex64)
    counts = np.zeros((width, height), np.int64)
    for k in lines:
        samples, head = _samples(records, heads, k, path), heads[k]
        if len(samples) != coils:
            raise InvdiffError(f"Readouts of {path} have different numbers of coils.")
        last = samples.shape[1] - int(head["discard_post"])
        start = int(head["discard_pre"])
        row = width // 2 - int(head["center_sample"]) + start
        column = int(head["idx"]["kspace_encode_step_1"]) - header.centre + height // 2
        fits = 0 <= row and row + last - start <= width and start < last and 0 <= column < height
        if not fits:
            raise InvdiffError(
                f"Readout {k} of {path} does not fit into the encoded matrix of {width} x {height}."
            )
        data[:, row : row + last - start, column] += samples[:, start:last]
        counts[row : row + last - start, column] += 1
    return data / np.maximum(counts, 1), counts


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
