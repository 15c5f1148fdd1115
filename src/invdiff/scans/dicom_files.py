"""Finding the slices of a series: DICOM files of every form, in a folder, a DICOMDIR, or alone."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invdiff.core import InvdiffError
from invdiff.scans.files import guarded

MOST_FILES = 20_000
"""Files that a folder may hold."""
DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: a DICOMDIR."""


@dataclass(frozen=True, eq=False)
class Images:
    """Data sets of the CT slices, with their files, and what else was found, in short phrases."""

    sets: list[tuple[Path, Any]]
    facts: list[str]


def pydicom_for(path: Path) -> Any:
    """The library. Raises InvdiffError where it is not installed."""
    try:
        import pydicom
    except ImportError:
        raise InvdiffError(
            f"Reading {path} needs pydicom, which is not installed; run pip install 'invdiff[io]'."
        ) from None
    return pydicom


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do: with a preamble, or at once with group 2 or 8."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    early = head[:4] in (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0")
    return head[128:] == b"DICM" or early


def find_images(path: Path, series: str | None) -> Images:
    """The CT slices of one series in a file or below a folder; all else is counted and named.

    series: number or UID of the series, where there are several.
    """
    pydicom = pydicom_for(path)
    if path.is_file():
        d = opened(path, pydicom)
        if d is None:
            raise InvdiffError(
                f"{path} is not a DICOM file that can be read (no preamble and no elements)."
            )
        if _class(d) != DIRECTORY:
            return Images([(path, d)], [])
        files, facts = _listed(path, d), ["the files that a DICOMDIR lists"]
    else:
        files, facts = _below(path), []
    found, left = _sorted_out(files, pydicom)
    if not found:
        told = f" ({', '.join(_counted(left))})" if left else ""
        raise InvdiffError(f"{path} holds no DICOM images of CT slices{told}.")
    found, others = _one_series(path, found, series)
    found, copies = _without_copies(found)
    facts += _counted(left)
    facts += [f"{others} slices of other series left out"] * (others > 0)
    facts += [f"{copies} copies of slices left out"] * (copies > 0)
    return Images([(file, _whole(file, pydicom)) for file, _ in found], facts)


def series_in(path: Path) -> list[str]:
    """UIDs of the series of CT slices in a folder and below it. Raises InvdiffError as
    `find_images` does for files that are broken."""
    found, _ = _sorted_out(_below(path), pydicom_for(path))
    return sorted({str(d.get("SeriesInstanceUID", "")) for _, d in found})


def _below(path: Path) -> list[Path]:
    """All files below a folder, in order; links are not followed."""
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        found += [Path(folder) / n for n in sorted(names) if not n.startswith(".")]
        if len(found) > MOST_FILES:
            raise InvdiffError(
                f"{path} holds more than {MOST_FILES} files; give the folder of one series."
            )
    return [file for file in found if file.is_file()]


def _listed(path: Path, d: Any) -> list[Path]:
    """The images that a DICOMDIR refers to. Raises InvdiffError where one is absent or outside."""
    found, root = [], path.parent.resolve()
    for record in d.get("DirectoryRecordSequence") or ():
        parts = record.get("ReferencedFileID")
        if parts is None or record.get("DirectoryRecordType") != "IMAGE":
            continue
        names = [parts] if isinstance(parts, str) else list(parts)
        file = root.joinpath(*map(str, names)).resolve()
        if root not in file.parents or not file.is_file():
            raise InvdiffError(
                f"{path} lists {'/'.join(map(str, names))}, which is not there; copy the disc anew."
            )
        found.append(file)
    return found


def _sorted_out(
    files: list[Path], pydicom: Any
) -> tuple[list[tuple[Path, Any]], list[tuple[str, Path]]]:
    """(CT slices by their heads, (what it is, file) of all others)."""
    found: list[tuple[Path, Any]] = []
    left: list[tuple[str, Path]] = []
    for file in files:
        d = opened(file, pydicom, heads=True)
        kind = "file that is no DICOM" if d is None else other_kind(d)
        if kind:
            left.append((kind, file))
        else:
            found.append((file, d))
    return found, left


def opened(file: Path, pydicom: Any, heads: bool = False) -> Any:
    """The data set of a file, with or without a preamble; None of what is no DICOM.

    Raises InvdiffError where a DICOM file is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(file, stop_before_pixels=heads)
    except pydicom.errors.InvalidDicomError:
        pass  # tried again below, without a preamble
    except Exception as error:
        raise InvdiffError(
            f"{file} is a broken DICOM file ({_reason(error)}); copy it again, or take it out of "
            "the folder."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            d = pydicom.dcmread(file, stop_before_pixels=heads, force=True)
            known = str(d.get("SOPClassUID", "")).startswith("1.2.840.10008.")
            image = all(name in d for name in ("Rows", "Columns", "BitsAllocated"))
    except Exception:
        known = image = False
    if known or image:
        return d
    if is_dicom(file):
        raise InvdiffError(
            f"{file} begins as a DICOM file without a preamble, and cannot be read; copy it again, "
            "or take it out of the folder."
        )
    return None


def _whole(file: Path, pydicom: Any) -> Any:
    with guarded(file, "a DICOM file"):
        d = opened(file, pydicom)
    return d


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__


def _class(d: Any) -> str:
    meta = getattr(d, "file_meta", None)
    found = d.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else None)
    return str(found or "")


def other_kind(d: Any) -> str:
    """What a data set is, where it is no CT slice; "" for a slice."""
    if _class(d) == DIRECTORY:
        return "DICOMDIR"
    modality = modality_of(d)
    if d.get("Rows") is None and not _is_image_class(d):
        return f"DICOM file without an image ({modality})"
    if modality != "CT":
        return f"image of modality {modality}"
    if is_localizer(d):
        return "localizer"
    screen = int(d.get("SamplesPerPixel", 1) or 1) != 1 or "SCREEN" in _image_type(d)
    return "picture of a screen or in colours" if screen else ""


def modality_of(d: Any) -> str:
    """CT, MR, ...: one short word, whatever a broken file holds."""
    word = str(d.get("Modality") or "unknown").strip()
    return word if word.isalnum() and len(word) <= 16 else "unknown"


def is_localizer(d: Any) -> bool:
    """Whether it is a survey view, which is no slice."""
    return bool({"LOCALIZER", "SCOUT", "TOPOGRAM"} & set(_image_type(d)))


def _is_image_class(d: Any) -> bool:
    return _class(d).startswith("1.2.840.10008.5.1.4.1.1.2")


def _image_type(d: Any) -> list[str]:
    words = d.get("ImageType") or ()
    words = [words] if isinstance(words, str) else list(words)
    return [w for word in words for w in str(word).upper().split()]


def _counted(left: list[tuple[str, Path]]) -> list[str]:
    """What was left out, with the names of the first files of each kind."""
    told = []
    for kind, count in Counter(kind for kind, _ in left).items():
        names = [file.name for k, file in left if k == kind]
        shown = ", ".join(names[:3]) + (", ..." if count > 3 else "")
        told.append(f"left out: {count} x {kind} ({shown})")
    return told


def _one_series(
    path: Path, found: list[tuple[Path, Any]], series: str | None
) -> tuple[list[tuple[Path, Any]], int]:
    """The slices of the series that is asked for, or of the only one; and how many others."""
    by: dict[str, list[tuple[Path, Any]]] = {}
    for file, d in found:
        by.setdefault(str(d.get("SeriesInstanceUID", "")), []).append((file, d))
    told = [
        f"{_number(part) or uid} ({len(part)} slices, "
        f"{str(part[0][1].get('SeriesDescription') or 'no description')})"
        for uid, part in by.items()
    ]
    if series is not None:
        by = {u: p for u, p in by.items() if series in (u, _number(p))}
        if not by:
            raise InvdiffError(f"{path} holds no series {series}; it holds {', '.join(told)}.")
    if len(by) > 1:
        raise InvdiffError(
            f"{path} holds {len(by)} series; give a folder with one of them, or its number with "
            f"--series: {', '.join(told[:8])}."
        )
    ((_, chosen),) = by.items()
    return chosen, len(found) - len(chosen)


def _number(part: list[tuple[Path, Any]]) -> str:
    value = part[0][1].get("SeriesNumber")
    return "" if value is None else str(value)


def _without_copies(found: list[tuple[Path, Any]]) -> tuple[list[tuple[Path, Any]], int]:
    """Each SOP instance once: its first file."""
    seen: set[str] = set()
    kept = []
    for file, d in found:
        uid = str(d.get("SOPInstanceUID") or file)
        if uid not in seen:
            kept.append((file, d))
        seen.add(uid)
    return kept, len(found) - len(kept)
