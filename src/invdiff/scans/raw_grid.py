"""Cartesian ISMRMRD raw data: readouts put in their place in k-space, in 2-D and in 3-D."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.files import check_size, guarded
from invdiff.scans.raw import Readouts, read_header, readouts


@dataclass(frozen=True, eq=False)
class Raw:
    """k-space (coils, H, W) and mask (H, W) of one slice, and what a `KSpace` tells beyond.
    readout: whether H is the readout, which may be oversampled."""

    data: np.ndarray
    mask: Tensor
    facts: tuple[str, ...]
    recon: tuple[int, int] | None
    noise: Tensor | None
    readout: bool = True


def read_raw(path: Path, group: Any, slice_: int | None) -> Raw:
    """One slice of a Cartesian measurement.

    2-D: readout along H, first phase encoding along W. 3-D: an inverse transform along the readout,
    which must be full, leaves a 2-D k-space at each of its positions: phase encoding 1 along H and
    2 along W; slice_ is that position, from 0 in the image that the scanner shows.
    Lines that were measured more than once are averaged. Of contrasts, phases, repetitions and sets
    the first is read. Noise scans give the covariance of the coils' noise; it is not applied.
    Raises InvdiffError for other trajectories, and for readouts that run backwards (EPI).
    """
    with guarded(path, "ISMRMRD raw data"):
        header = read_header(group, path)
        if header.kind == "epi":
            raise InvdiffError(
                f"{path} is an EPI measurement, which needs a phase correction; correct it first."
            )
        if header.kind != "cartesian":
            raise InvdiffError(
                f"{path} was measured along a trajectory of kind {header.kind or 'unknown'}; only "
                "cartesian raw data lies on a grid, read others by read_noncartesian."
            )
        deep = header.encoded[2] > 1
        r = readouts(path, group, header, None if deep else slice_)
        if deep:
            data, counts, told = _partitions(r, slice_)
        else:
            (data, counts), told = _placed(r), ()
    repeats = int(counts.max())
    again = (f"lines measured up to {repeats} times were averaged",) * (repeats > 1)
    recon = header.recon[1:] if deep else header.recon[:2]
    mask = torch.from_numpy(counts > 0)
    return Raw(data, mask, (*r.facts, *told, *again), recon, r.noise, not deep)


def _placed(r: Readouts) -> tuple[np.ndarray, np.ndarray]:
    """k-space (coils, x, y), means of what was measured, and how often each was measured (x, y)."""
    width, height = r.header.encoded[:2]
    check_size((r.coils, width, height), 8, f"k-space of {r.path}")
    data = np.zeros((r.coils, width, height), np.complex64)
    counts = np.zeros((width, height), np.int64)
    for k in r.lines:
        row, stop = _rows(r, k)
        column = _step(r, k, 1)
        if not (0 <= row and stop <= width and 0 <= column < height):
            raise InvdiffError(
                f"Readout {k} of {r.path} does not fit into the encoded matrix of {width} x "
                f"{height}."
            )
        data[:, row:stop, column] += r.samples(k)
        counts[row:stop, column] += 1
    return data / np.maximum(counts, 1), counts


def _partitions(r: Readouts, wanted: int | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """k-space (coils, y, z) at one position of the readout, counts (y, z), and what was done."""
    width, height, depth = r.header.encoded
    shown = min(r.header.recon[0], width)
    position = shown // 2 if wanted is None else wanted
    if not 0 <= position < shown:
        raise InvdiffError(
            f"{r.path} is a 3-D measurement of {shown} positions along its readout, counted from "
            f"0; there is no slice {wanted}."
        )
    check_size((r.coils, height, depth), 8, f"k-space of {r.path}")
    # one row of the centred, orthonormal inverse transform
    n = np.arange(width) - width // 2
    turns = n * (position - shown // 2) / width
    wave = (np.exp(2j * np.pi * turns) / np.sqrt(width)).astype(np.complex64)
    data = np.zeros((r.coils, height, depth), np.complex64)
    counts = np.zeros((height, depth), np.int64)
    for k in r.lines:
        row, stop = _rows(r, k)
        if (row, stop) != (0, width):
            raise InvdiffError(
                f"Readout {k} of {r.path} covers samples {row} to {stop - 1} of 0 to {width - 1}; "
                "a 3-D measurement is read where every readout is full."
            )
        y, z = _step(r, k, 1), _step(r, k, 2)
        if not (0 <= y < height and 0 <= z < depth):
            raise InvdiffError(
                f"Readout {k} of {r.path} does not fit into the encoded matrix of {height} x "
                f"{depth} phase encodings."
            )
        data[:, y, z] += r.samples(k) @ wave
        counts[y, z] += 1
    middle = ", the middle one" if wanted is None else ""
    told = (
        f"3-D, transformed along the readout: slice {position} of {shown}{middle}",
        "rows are phase encoding 1, columns phase encoding 2",
    )
    return data / np.maximum(counts, 1), counts, told


def _rows(r: Readouts, k: int) -> tuple[int, int]:
    """Where the readout k begins and ends in the encoded matrix."""
    start, stop = r.span(k)
    row = r.header.encoded[0] // 2 - int(r.heads[k]["center_sample"]) + start
    return row, row + stop - start


def _step(r: Readouts, k: int, step: int) -> int:
    """Where the phase encoding 1 or 2 of the readout k lies in the encoded matrix."""
    found = int(r.heads[k]["idx"][f"kspace_encode_step_{step}"])
    return found - r.header.centre(step) + r.header.encoded[step] // 2
