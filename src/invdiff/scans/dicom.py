"""CT slices in Hounsfield units from DICOM files, through pydicom (extra `io`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.files import check_size, guarded

AIR = -1024.0
"""Hounsfield units given to padding outside the field of view."""


SINGLE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelSpacing",
)
"""What a single slice tells of itself, in the order of `Frame`."""


@dataclass(frozen=True, eq=False)
class Slices:
    """CT slices in their order in space.

    hu: (slices, 1, H, W) float32, Hounsfield units; `hu_to_x` makes them x of the prior `ct`.
    spacing: mm between rows and between columns; None where the file does not tell.
    positions: mm along the normal of the slices, rising; None for a single slice without one.
    facts: what was found and done, one short phrase each.
    """

    hu: Tensor
    spacing: tuple[float, float] | None
    positions: tuple[float, ...] | None
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice of a data set, and what the file tells of it. what: its name in sentences."""

    file: Path
    d: Any
    index: int
    what: str
    position: Any
    turn: Any
    slope: Any
    intercept: Any
    spacing: Any


def read_dicom(path: str | Path) -> Slices:
    """CT slices of a DICOM file, or of all in a folder, sorted by their position.

    A file holds one slice, or frames whose functional groups tell the position and the rescaling of
    each (enhanced CT). Hounsfield units are stored values * RescaleSlope + RescaleIntercept.
    MONOCHROME1 only says that a display shows high values dark: they are not inverted. Padding
    becomes -1024.
    Raises InvdiffError, one sentence that names the file, when it is broken, no CT image, lacks the
    rescaling, or when there are several series, sizes or orientations.
    """
    path = Path(path)
    if not path.exists():
        raise InvdiffError(f"There is no file or folder {path}.")
    with guarded(path, "a DICOM image"):
        return _slices(path)


def _slices(path: Path) -> Slices:
    """The slices of an existing file or folder."""
    found, passed = _files(path)
    series = sorted({str(d.get("SeriesInstanceUID", "")) for _, d in found})
    if len(series) > 1:
        raise InvdiffError(f"{path} holds {len(series)} series; give a folder with one of them.")
    sizes = set()
    for file, d in found:
        with guarded(file, "a DICOM image"):
            sizes.add((int(d.Rows), int(d.Columns)))
    if len(sizes) > 1:
        raise InvdiffError(f"{path} holds slices of different sizes: {sorted(sizes)}.")
    ((h, w),) = sizes
    frames = [frame for file, d in found for frame in _frames(file, d)]
    ordered, positions = _sorted(frames, path)
    check_size((len(ordered), h, w), 4, str(path))
    slices = [_hounsfield(frame) for frame in ordered]
    hu = torch.from_numpy(np.stack([values for values, _ in slices]))[:, None]
    facts = [f"DICOM, {len(slices)} slice{'s' * (len(slices) > 1)} of {h} x {w}"]
    facts += ["frames of one file"] * (len(found) < len(frames))
    facts += sorted({told for _, all_ in slices for told in all_})
    facts += [f"{passed} other files in the folder passed over"] * (passed > 0)
    if positions is not None and len(positions) > 2:
        gaps = np.diff(positions)
        if gaps.max() > 1.5 * np.median(gaps):
            facts.append("slices are missing: the distances between them differ")
    return Slices(hu, _spacing(ordered[0]), positions, tuple(facts))


def _files(path: Path) -> tuple[list[tuple[Path, Any]], int]:
    """The DICOM data sets of a file or folder, and how many files were none."""
    try:
        import pydicom
    except ImportError:
        raise InvdiffError(
            f"Reading {path} needs pydicom, which is not installed; run pip install 'invdiff[io]'."
        ) from None
    if path.is_file():
        with guarded(path, "a DICOM file"):
            return [(path, pydicom.dcmread(path))], 0
    found, passed = [], 0
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        try:
            head = pydicom.dcmread(file, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            passed += 1
            continue
        except Exception as error:
            raise InvdiffError(
                f"{file} is a broken DICOM file; remove it or copy it again."
            ) from error
        if head.get("Rows") is None:
            passed += 1
            continue
        with guarded(file, "a DICOM file"):
            found.append((file, pydicom.dcmread(file)))
    if not found:
        raise InvdiffError(f"{path} holds no DICOM images.")
    return found, passed


def _frames(file: Path, d: Any) -> list[Frame]:
    """The slices of a data set: itself, or its frames by their functional groups."""
    if str(d.get("Modality", "unknown")) != "CT":
        raise InvdiffError(
            f"{file} is an image of modality {d.get('Modality', 'unknown')}; Hounsfield units are "
            "those of CT."
        )
    if int(d.get("SamplesPerPixel", 1)) != 1:
        raise InvdiffError(f"{file} holds colours; give slices in grey.")
    count = int(d.get("NumberOfFrames", 1) or 1)
    groups = d.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if count > 1:
            raise InvdiffError(
                f"{file} holds several frames without functional groups, which tell where each is "
                "and what its values mean; give single slices or enhanced CT."
            )
        return [Frame(file, d, 0, str(file), *(d.get(name) for name in SINGLE))]
    if len(groups) != count:
        raise InvdiffError(
            f"{file} holds {count} frames, but functional groups of {len(groups)}; copy it again."
        )
    shared = list(d.get("SharedFunctionalGroupsSequence") or ())[:1]
    return [_frame(file, d, k, [own, *shared]) for k, own in enumerate(groups)]


def _frame(file: Path, d: Any, k: int, groups: list[Any]) -> Frame:
    """Frame k, by its own functional groups and those shared by all."""

    def told(group: str, name: str) -> Any:
        for g in groups:
            items = g.get(group)
            if items and items[0].get(name) is not None:
                return items[0].get(name)
        return None

    what = f"Frame {k + 1} of {file}"
    unit = told("PixelValueTransformationSequence", "RescaleType")
    if unit not in (None, "", "HU"):
        raise InvdiffError(f"{what} has values of type {unit}, which are not Hounsfield units.")
    return Frame(
        file,
        d,
        k,
        what,
        told("PlanePositionSequence", "ImagePositionPatient"),
        told("PlaneOrientationSequence", "ImageOrientationPatient"),
        told("PixelValueTransformationSequence", "RescaleSlope"),
        told("PixelValueTransformationSequence", "RescaleIntercept"),
        told("PixelMeasuresSequence", "PixelSpacing"),
    )


def _sorted(frames: list[Frame], path: Path) -> tuple[list[Frame], tuple[float, ...] | None]:
    """Slices by position along their normal."""
    places: list[float] = []
    normals: list[np.ndarray] = []
    for frame in frames:
        if frame.position is None or frame.turn is None:
            if len(frames) == 1:
                return frames, None
            raise InvdiffError(f"{frame.what} does not tell its position, so {path} has no order.")
        with guarded(frame.file, "a DICOM file"):
            normals.append(np.cross(*np.array(frame.turn, np.float64).reshape(2, 3)))
            places.append(float(normals[0] @ np.array(frame.position, np.float64)))
        if not np.isfinite(places[-1]):
            raise InvdiffError(f"{frame.what} has a position that is not finite.")
        if np.abs(normals[-1] - normals[0]).max() > 1e-3:
            raise InvdiffError(
                f"{path} holds slices of different orientations; give those of one stack."
            )
    order = np.argsort(places, kind="stable")
    positions = tuple(places[k] for k in order)
    if len(set(positions)) < len(positions):
        raise InvdiffError(f"{path} holds two slices at the same position; keep one of them.")
    return [frames[k] for k in order], positions


def _hounsfield(frame: Frame) -> tuple[np.ndarray, list[str]]:
    """(H, W) float32 of one slice, and what was done."""
    d = frame.d
    if frame.slope is None or frame.intercept is None:
        raise InvdiffError(
            f"{frame.what} has no RescaleSlope and RescaleIntercept, so its values are not in HU."
        )
    told = []
    with guarded(frame.file, "a DICOM image"):
        h, w = int(d.Rows), int(d.Columns)
        check_size((int(d.get("NumberOfFrames", 1) or 1), h, w), 4, str(frame.file))
        stored = np.asarray(d.pixel_array).reshape(-1, h, w)[frame.index]
        hu = stored.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
        padding = d.get("PixelPaddingValue")
        if padding is not None:
            outside = stored == int(padding)
            hu[outside] = AIR
            told += [f"padding set to {AIR:g} HU"] * bool(outside.any())
        if not np.isfinite(hu).all():
            raise InvdiffError(f"{frame.what} holds values that are not finite.")
    if str(d.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        told.append("MONOCHROME1: shown inverted by viewers, values are not")
    return hu, told


def _spacing(frame: Frame) -> tuple[float, float] | None:
    """mm between rows and columns."""
    spacing = frame.spacing
    return None if spacing is None else (float(spacing[0]), float(spacing[1]))
