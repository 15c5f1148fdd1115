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


def read_dicom(path: str | Path) -> Slices:
    """CT slices of a DICOM file, or of all in a folder, sorted by their position.

    Hounsfield units are stored values * RescaleSlope + RescaleIntercept. MONOCHROME1 only says that
    a display shows high values dark: they are not inverted. Padding becomes -1024.
    Raises InvdiffError, one sentence that names the file, when it is broken, no CT image, lacks the
    rescaling, or when a folder holds several series or sizes.
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
    ordered, positions = _sorted(found, path)
    sizes = set()
    for file, d in ordered:
        with guarded(file, "a DICOM image"):
            sizes.add((int(d.Rows), int(d.Columns)))
    if len(sizes) > 1:
        raise InvdiffError(f"{path} holds slices of different sizes: {sorted(sizes)}.")
    ((h, w),) = sizes
    check_size((len(ordered), h, w), 4, str(path))
    slices = [_hounsfield(file, d) for file, d in ordered]
    hu = torch.from_numpy(np.stack([values for values, _ in slices]))[:, None]
    facts = [f"DICOM, {len(slices)} slice{'s' * (len(slices) > 1)} of {h} x {w}"]
    facts += sorted({told for _, all_ in slices for told in all_})
    facts += [f"{passed} other files in the folder passed over"] * (passed > 0)
    if positions is not None and len(positions) > 2:
        gaps = np.diff(positions)
        if gaps.max() > 1.5 * np.median(gaps):
            facts.append("slices are missing: the distances between them differ")
    return Slices(hu, _spacing(ordered[0][1]), positions, tuple(facts))


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


def _sorted(
    found: list[tuple[Path, Any]], path: Path
) -> tuple[list[tuple[Path, Any]], tuple[float, ...] | None]:
    """Data sets by position along the normal of the slices."""
    places: list[float] = []
    for file, d in found:
        with guarded(file, "a DICOM file"):
            position, turn = d.get("ImagePositionPatient"), d.get("ImageOrientationPatient")
            if position is None or turn is None:
                if len(found) == 1:
                    return found, None
                raise InvdiffError(f"{file} does not tell its position, so {path} has no order.")
            axes = np.array(turn, np.float64).reshape(2, 3)
            places.append(float(np.cross(*axes) @ np.array(position, np.float64)))
    order = np.argsort(places, kind="stable")
    positions = tuple(places[k] for k in order)
    if len(set(positions)) < len(positions):
        raise InvdiffError(f"{path} holds two slices at the same position; keep one of them.")
    return [found[k] for k in order], positions


def _hounsfield(file: Path, d: Any) -> tuple[np.ndarray, list[str]]:
    """(H, W) float32 of one data set, and what was done."""
    modality = str(d.get("Modality", "unknown"))
    if modality != "CT":
        raise InvdiffError(
            f"{file} is an image of modality {modality}; Hounsfield units are those of CT."
        )
    if int(d.get("NumberOfFrames", 1) or 1) > 1 or int(d.get("SamplesPerPixel", 1)) != 1:
        raise InvdiffError(
            f"{file} holds several frames or colours; give one grey slice in a file."
        )
    slope, intercept = d.get("RescaleSlope"), d.get("RescaleIntercept")
    if slope is None or intercept is None:
        raise InvdiffError(
            f"{file} has no RescaleSlope and RescaleIntercept, so its values are not in HU."
        )
    told = []
    with guarded(file, "a DICOM image"):
        check_size((int(d.Rows), int(d.Columns)), 4, str(file))
        stored = np.asarray(d.pixel_array)
        hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        padding = d.get("PixelPaddingValue")
        if padding is not None:
            outside = stored == int(padding)
            hu[outside] = AIR
            told += [f"padding set to {AIR:g} HU"] * bool(outside.any())
        if not np.isfinite(hu).all():
            raise InvdiffError(f"{file} holds values that are not finite.")
    if str(d.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        told.append("MONOCHROME1: shown inverted by viewers, values are not")
    return hu, told


def _spacing(d: Any) -> tuple[float, float] | None:
    """mm between rows and columns."""
    spacing = d.get("PixelSpacing")
    return None if spacing is None else (float(spacing[0]), float(spacing[1]))
