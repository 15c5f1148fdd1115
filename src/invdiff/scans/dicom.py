"""CT slices in Hounsfield units from DICOM files, through pydicom (extra `io`)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import WARNING, InvdiffError
from invdiff.scans.dicom_files import find_images, is_localizer, modality_of
from invdiff.scans.dicom_values import LOWEST, Frame, Values, hounsfield
from invdiff.scans.files import check_size, guarded

SINGLE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelSpacing",
    "RescaleType",
)
"""What a single slice tells of itself, in the order of `Frame`."""


@dataclass(frozen=True, eq=False)
class Slices:
    """CT slices in their order in space.

    hu: (slices, 1, H, W) float32, Hounsfield units; `hu_to_x` makes them x of the prior `ct`.
    spacing: mm between rows and between columns; None where the file does not tell.
    positions: mm along the normal of the slices, rising; None for a single slice without one.
    facts: what was found and done, one short phrase each; those that begin with WARNING tell
    what may be wrong. padding: which pixels the file declares to be none, as hu; they are air.
    raw: hu before that. frames: what each slice was read from.
    """

    hu: Tensor
    spacing: tuple[float, float] | None
    positions: tuple[float, ...] | None
    facts: tuple[str, ...] = ()
    padding: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool), repr=False)
    raw: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    frames: tuple[Frame, ...] = field(default=(), repr=False)


def read_dicom(path: str | Path, series: str | int | None = None, hu: bool = False) -> Slices:
    """CT slices of a DICOM file, of all in a folder and below it, or of a DICOMDIR, by position.

    A file holds one slice, or frames whose functional groups tell the position and the rescaling of
    each (enhanced CT); it may lack preamble, group 2 and ending. Hounsfield units are stored values
    * RescaleSlope + RescaleIntercept, or those of a modality lookup table. MONOCHROME1 only says
    that a display shows high values dark: they are not inverted. Padding, a value or a range in the
    type of the pixels, becomes -1024. Localizers, reports and images of other kinds are left out,
    and the facts name them; so they do of slices that are missing.
    series: number or UID of the series, where there are several. hu: values whose type a file calls
    unspecified (US) are Hounsfield units.
    Raises InvdiffError, one sentence that names the file, when it is broken, no CT image, not in
    Hounsfield units, compressed in a way that nothing installed decodes, or when there are several
    series, sizes or orientations.
    """
    path = Path(path)
    if not path.exists():
        raise InvdiffError(f"There is no file or folder {path}.")
    with guarded(path, "a DICOM image"):
        return _slices(path, None if series is None else str(series), hu)


def _slices(path: Path, series: str | None, hu_meant: bool) -> Slices:
    """The slices of an existing file or folder."""
    images = find_images(path, series)
    frames = [frame for file, d in images.sets for frame in _frames(file, d)]
    if hu_meant:
        frames = [dataclasses.replace(f, unit="HU") if f.unit == "US" else f for f in frames]
    sizes = set()
    for file, d in images.sets:
        with guarded(file, "a DICOM image"):
            sizes.add((int(d.Rows), int(d.Columns)))
    if len(sizes) > 1:
        raise InvdiffError(f"{path} holds slices of different sizes: {sorted(sizes)}.")
    ((h, w),) = sizes
    ordered, positions = _sorted(frames, path)
    check_size((len(ordered), h, w), 4, str(path))
    values = [hounsfield(frame) for frame in ordered]
    facts = [f"DICOM, {len(values)} slice{'s' * (len(values) > 1)} of {h} x {w}"]
    facts += ["frames of one file"] * (len(images.sets) < len(frames))
    facts += sorted({told for v in values for told in v.facts})
    facts += [*images.facts, *_holes(ordered, positions), *_too_low(values)]
    hu = torch.from_numpy(np.stack([v.hu for v in values]))[:, None]
    padding = torch.from_numpy(np.stack([v.padding for v in values]))[:, None]
    raw = torch.from_numpy(np.stack([v.raw for v in values]))[:, None] if padding.any() else hu
    told = tuple(facts)
    return Slices(hu, _spacing(ordered[0]), positions, told, padding, raw, tuple(ordered))


def _holes(frames: list[Frame], positions: tuple[float, ...] | None) -> list[str]:
    """Where slices are missing, by distances and by the numbers of instances."""
    told = []
    if positions is not None and len(positions) > 2:
        gaps = np.diff(positions)
        usual = float(np.median(gaps))
        wide = np.flatnonzero(gaps > 1.5 * usual)
        where = ", ".join(f"{positions[k]:g} and {positions[k + 1]:g} mm" for k in wide[:4])
        told += [
            f"{WARNING}slices are missing: between {where}"
            + (", ..." if len(wide) > 4 else "")
            + f" (the usual distance is {usual:g} mm)"
        ] * bool(len(wide))
    numbers = [f.d.get("InstanceNumber") for f in frames]
    if len({id(f.d) for f in frames}) == len(frames) > 1 and all(n is not None for n in numbers):
        have = sorted(int(n) for n in numbers)
        if have[-1] - have[0] > 10 * len(have):  # numbers that do not count the slices
            return told
        steps = Counter(np.diff(have).tolist())
        step = max(1, int(steps.most_common(1)[0][0]) if len(have) > 2 else 1)
        absent = sorted(set(range(have[0], have[-1] + 1, step)) - set(have))
        some = ", ".join(map(str, absent[:6])) + (", ..." if len(absent) > 6 else "")
        told += [f"{WARNING}the series lacks instances {some}"] * bool(absent)
    return told


def _too_low(values: list[Values]) -> list[str]:
    """Pixels that lie below air, and are not declared to be padding."""
    count = sum(int((v.hu < LOWEST).sum()) for v in values)
    if not count:
        return []
    least = min(float(v.hu.min()) for v in values)
    return [
        f"{WARNING}{count} pixels lie below {LOWEST:g} HU, down to {least:g}, where no tissue and "
        "no air lies: padding that the file does not declare, or another rescaling"
    ]


def _frames(file: Path, d: Any) -> list[Frame]:
    """The slices of a data set: itself, or its frames by their functional groups."""
    if d.get("Rows") is None and "PixelData" not in d:
        raise InvdiffError(
            f"{file} is a DICOM file without an image ({modality_of(d)}); give CT slices."
        )
    if modality_of(d) != "CT":
        raise InvdiffError(
            f"{file} is an image of modality {modality_of(d)}; Hounsfield units are those of CT."
        )
    if is_localizer(d):
        raise InvdiffError(f"{file} is a localizer, a survey view through the body, and no slice.")
    palette = str(d.get("PhotometricInterpretation", "")).startswith("PALETTE")
    if palette or int(d.get("SamplesPerPixel", 1) or 1) != 1:
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

    return Frame(
        file,
        d,
        k,
        f"Frame {k + 1} of {file}",
        told("PlanePositionSequence", "ImagePositionPatient"),
        told("PlaneOrientationSequence", "ImageOrientationPatient"),
        told("PixelValueTransformationSequence", "RescaleSlope"),
        told("PixelValueTransformationSequence", "RescaleIntercept"),
        told("PixelMeasuresSequence", "PixelSpacing"),
        told("PixelValueTransformationSequence", "RescaleType"),
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


def _spacing(frame: Frame) -> tuple[float, float] | None:
    """mm between rows and columns."""
    spacing = frame.spacing
    return None if spacing is None else (float(spacing[0]), float(spacing[1]))
