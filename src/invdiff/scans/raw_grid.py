"""Cartesian ISMRMRD raw data: readouts put in their place in k-space, in 2-D and in 3-D."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.asked import Asked
from invdiff.scans.files import check_size, guarded
from invdiff.scans.placement import Placement, of_head
from invdiff.scans.raw import NoiseScan, Readouts, integrated, readouts
from invdiff.scans.raw_header import Header, read_header

Cells = tuple[np.ndarray, np.ndarray]
"""Means of what was measured (coils, ...), and how often each place was measured (...)."""


@dataclass(frozen=True, eq=False)
class Raw:
    """k-space (coils, H, W) and mask (H, W) of one slice, and what a `KSpace` tells beyond.
    readout: whether H is the readout, which may be oversampled."""

    data: np.ndarray
    mask: Tensor
    facts: tuple[str, ...]
    recon: tuple[int, int]
    noise: NoiseScan | None
    calibration: np.ndarray | None = None
    placement: Placement | None = None
    readout: bool = True
    dwell: float = 0.0
    averaged: float = 1.0
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_raw(path: Path, group: Any, asked: Asked) -> Raw:
    """One image of a Cartesian measurement.

    2-D: readout along H, first phase encoding along W. 3-D: an inverse transform along the readout,
    which must be full, leaves a 2-D k-space at each of its positions: phase encoding 1 along H and
    2 along W; the slice is that position, from 0 in the image that the scanner shows.
    Lines that were measured more than once are averaged. Of contrasts, phases, repetitions and sets
    one is read. Calibration lines that belong to the image fill its gaps, others are for the maps.
    Raises InvdiffError for other trajectories, and for readouts that run backwards (EPI).
    """
    with guarded(path, "ISMRMRD raw data"):
        header = read_header(group, path, asked.encoding)
        if header.kind == "epi":
            raise InvdiffError(
                f"{path} is an EPI measurement, which needs a phase correction; correct it first."
            )
        if header.kind != "cartesian":
            raise InvdiffError(
                f"{path} was measured along a trajectory of kind {header.kind or 'unknown'}; only "
                "cartesian raw data lies on a grid, read others by read_noncartesian."
            )
        r = readouts(path, group, header, asked)
        r = dataclasses.replace(r, header=_covered(r))
        return _deep(r, asked.slice) if header.encoded[2] > 1 else _flat(r)


def _covered(r: Readouts) -> Header:
    """The header, with the readout that was sampled in place of the encoded one where it is a
    multiple: programs write the matrix with the oversampling of the readout, or without.

    The field of view is the encoded one where its pixels are then those that are shown; else the
    samples are denser than the encoding tells, and it is larger by the same factor.
    """
    h, head = r.header, r.heads[r.lines[0]]
    start, stop = r.span(int(r.lines[0]))
    n, width = stop - start, h.encoded[0]
    middle = abs(int(head["center_sample"]) - start - n // 2) <= 1
    if n <= width or n % width or n // width > 8 or not middle:
        return h
    factor, (x, y, z) = n // width, h.encoded_mm
    shown = h.recon_mm[0] / h.recon[0]
    finer = x > 0 and shown > 0 and abs(x / n - shown) <= 0.01 * shown
    encoded_mm = (x if finer else factor * x, y, z)
    if x <= 0 or h.recon_mm[0] <= 0:  # the matrix alone decides: what is shown is the encoded one
        encoded_mm = (0.0, y, z)
    return dataclasses.replace(h, encoded=(n, *h.encoded[1:]), encoded_mm=encoded_mm)


def _flat(r: Readouts) -> Raw:
    """A slice: (coils, x, y)."""
    h = r.header
    voxel = (h.encoded_mm[0] / h.encoded[0], h.encoded_mm[1] / h.encoded[1], h.encoded_mm[2])
    placement = of_head(r.heads[r.lines[0]], voxel)
    cells, calibration, told = _joined(r, lambda lines, of: _placed(r, lines, of))
    recon = h.shown(0), h.shown(1)
    return _finished(r, cells, (*r.facts, *told), recon, calibration, placement, True)


def _deep(r: Readouts, wanted: int | None) -> Raw:
    """A position of the readout of three dimensions: (coils, y, z)."""
    h = r.header
    shown = h.shown(0)
    position = shown // 2 if wanted is None else wanted
    if not 0 <= position < shown:
        raise InvdiffError(
            f"{r.path} is a 3-D measurement of {shown} positions along its readout, counted from "
            f"0; there is no slice {wanted}."
        )
    offset = position - shown // 2
    r.counts["slice"] = tuple(range(shown))
    cells, calibration, told = _joined(r, lambda lines, of: _partitions(r, lines, of, offset))
    middle = ", the middle one" if wanted is None else ""
    told = (
        f"3-D, transformed along the readout: slice {position} of {shown}{middle}",
        "rows are phase encoding 1, columns phase encoding 2",
        *told,
    )
    x, y, z = (mm / n for mm, n in zip(h.encoded_mm, h.encoded, strict=True))
    placement = of_head(r.heads[r.lines[0]], (x, y, z), deep=offset)
    recon = h.shown(1), h.shown(2)
    return _finished(r, cells, (*r.facts, *told), recon, calibration, placement, False)


def _joined(
    r: Readouts, cells_of: Callable[[np.ndarray, Header | None], Cells]
) -> tuple[Cells, np.ndarray | None, tuple[str, ...]]:
    """The image with calibration lines in its gaps, or these alone, and what was done.

    cells_of(lines, header): lines in their place; header: of the encoding of calibration lines, of
    which those that do not fit are passed over.
    """
    image = cells_of(r.lines, None)
    if not len(r.calibration):
        return image, None, ()
    theirs = cells_of(r.calibration, r.calibration_header)
    if not integrated(r, _numbers(r, r.lines), _numbers(r, r.calibration)):
        told = "calibration lines, of a scan of their own, are for the coil maps alone"
        return image, theirs[0] if theirs[1].any() else None, (told,)
    empty = image[1] == 0
    filled = np.where(empty, theirs[0], image[0]), np.where(empty, theirs[1], image[1])
    return filled, None, ("calibration lines fill gaps of the image",)


def _numbers(r: Readouts, lines: np.ndarray) -> np.ndarray:
    """Where lines are in k-space, a number for each."""
    steps = r.heads["idx"][lines]
    deep = r.header.encoded[2] > 1
    first, second = (steps[f"kspace_encode_step_{k}"].astype(int) for k in (1, 2))
    found: np.ndarray = first * r.header.encoded[2] + second * deep
    return found


def _finished(
    r: Readouts,
    cells: Cells,
    told: tuple[str, ...],
    recon: tuple[int, int],
    calibration: np.ndarray | None,
    placement: Placement | None,
    readout: bool,
) -> Raw:
    """k-space with what was averaged, whose noise is less by it."""
    data, counts = cells
    repeats, noise = int(counts.max()), r.noise
    again = (f"lines measured up to {repeats} times were averaged",) * (repeats > 1)
    share = float((1 / counts[counts > 0]).mean())
    if noise is not None:
        noise = dataclasses.replace(noise, covariance=noise.covariance * share)
    mask = torch.from_numpy(counts > 0)
    dwell = float(r.heads[r.lines[0]]["sample_time_us"])
    return Raw(
        data, mask, (*told, *again), recon, noise, calibration, placement, readout,
        dwell if 0 < dwell < math.inf else 0.0, share, r.counts,
    )  # fmt: skip


def _placed(r: Readouts, lines: np.ndarray, calibration: Header | None) -> Cells:
    """k-space (coils, x, y), and how often each place was measured (x, y)."""
    width, height = r.header.encoded[:2]
    check_size((r.coils, width, height), 8, f"k-space of {r.path}")
    data = np.zeros((r.coils, width, height), np.complex64)
    counts = np.zeros((width, height), np.int64)
    for k in lines:
        row, stop = _rows(r, k)
        column = _step(r, k, 1, calibration)
        if not (0 <= row and stop <= width and 0 <= column < height):
            if calibration is not None:
                continue
            raise InvdiffError(
                f"Readout {k} of {r.path} does not fit into the encoded matrix of {width} x "
                f"{height}."
            )
        data[:, row:stop, column] += r.samples(k)
        counts[row:stop, column] += 1
    return data / np.maximum(counts, 1), counts


def _partitions(r: Readouts, lines: np.ndarray, calibration: Header | None, offset: int) -> Cells:
    """k-space (coils, y, z) at a position of the readout, from the middle, and counts (y, z)."""
    width, height, depth = r.header.encoded
    check_size((r.coils, height, depth), 8, f"k-space of {r.path}")
    # one row of the centred, orthonormal inverse transform
    turns = (np.arange(width) - width // 2) * offset / width
    wave = (np.exp(2j * np.pi * turns) / np.sqrt(width)).astype(np.complex64)
    data = np.zeros((r.coils, height, depth), np.complex64)
    counts = np.zeros((height, depth), np.int64)
    for k in lines:
        row, stop = _rows(r, k)
        y, z = _step(r, k, 1, calibration), _step(r, k, 2, calibration)
        fits = 0 <= y < height and 0 <= z < depth
        if calibration is not None and not (fits and 0 <= row and stop <= width):
            continue
        if calibration is None and (row, stop) != (0, width):
            raise InvdiffError(
                f"Readout {k} of {r.path} covers samples {row} to {stop - 1} of 0 to {width - 1}; "
                "a 3-D measurement is read where every readout is full."
            )
        if not fits:
            raise InvdiffError(
                f"Readout {k} of {r.path} does not fit into the encoded matrix of {height} x "
                f"{depth} phase encodings."
            )
        data[:, y, z] += r.samples(k) @ wave[row:stop]
        counts[y, z] += 1
    return data / np.maximum(counts, 1), counts


def _rows(r: Readouts, k: int) -> tuple[int, int]:
    """Where the readout k begins and ends in the encoded matrix."""
    start, stop = r.span(k)
    row = r.header.encoded[0] // 2 - int(r.heads[k]["center_sample"]) + start
    return row, row + stop - start


def _step(r: Readouts, k: int, step: int, calibration: Header | None) -> int:
    """Where the phase encoding 1 or 2 of the readout k lies in the encoded matrix.

    calibration: the header of the encoding that tells its middle, where it is another one.
    """
    found = int(r.heads[k]["idx"][f"kspace_encode_step_{step}"])
    return found - (calibration or r.header).centre(step) + r.header.encoded[step] // 2
