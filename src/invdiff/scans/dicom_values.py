"""Hounsfield units of the stored values of a DICOM slice: rescaling, units, padding, decoding."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.files import check_size, guarded

AIR = -1024.0
"""Hounsfield units given to padding outside the field of view."""
LOWEST = -1100.0
"""Hounsfield units below which nothing of a body or of air lies."""
PACKAGES = {
    "1.2.840.10008.1.2.4.50": "python-gdcm",
    "1.2.840.10008.1.2.4.51": "python-gdcm",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.5": "pylibjpeg-rle",
}
"""What decodes a transfer syntax, where the extra `io` does not."""


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
    unit: Any


@dataclass(frozen=True, eq=False)
class Values:
    """hu: (H, W) float32; padding: which of them are padding; raw: the same before padding became
    air; facts: what was done."""

    hu: np.ndarray
    padding: np.ndarray
    raw: np.ndarray
    facts: list[str]


def hounsfield(frame: Frame) -> Values:
    """The values of one slice in Hounsfield units. Raises InvdiffError where they are in others."""
    d, told = frame.d, []
    table = d.get("ModalityLUTSequence")
    _check_unit(frame, table)
    with guarded(frame.file, "a DICOM image"):
        stored = _stored(frame)
        if table:
            raw = _looked_up(d, table[0], stored)
            told.append("values by the file's modality lookup table")
        else:
            raw = stored.astype(np.float32) * np.float32(frame.slope) + np.float32(frame.intercept)
        if not np.isfinite(raw).all():
            raise InvdiffError(f"{frame.what} holds values that are not finite.")
        outside = _padding(d, stored)
    hu = np.where(outside, np.float32(AIR), raw)
    told += [f"padding set to {AIR:g} HU"] * bool(outside.any())
    if str(d.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        told.append("MONOCHROME1: shown inverted by viewers, values are not")
    if str(d.get("LossyImageCompression", "")) == "01":
        told.append("compressed with losses before: noise and detail are no longer those measured")
    return Values(hu, outside, raw, told)


def _check_unit(frame: Frame, table: Any) -> None:
    """Raise InvdiffError unless the file says how its values become Hounsfield units."""
    unit = str(frame.unit or "").strip().upper()
    if table:
        unit = str(table[0].get("ModalityLUTType") or "unspecified").strip().upper()
    elif frame.slope is None or frame.intercept is None:
        raise InvdiffError(
            f"{frame.what} has no RescaleSlope and RescaleIntercept, so its values are not in HU."
        )
    if unit in ("US", "UNSPECIFIED"):
        raise InvdiffError(
            f"{frame.what} has values of an unspecified type (US): they may be Hounsfield units, "
            "as in files that gdcm wrote, or others; if they are, give --unit hu (hu=True)."
        )
    if unit not in ("", "HU"):
        raise InvdiffError(
            f"{frame.what} has values of type {unit}, which are not Hounsfield units."
        )
    with guarded(frame.file, "a DICOM image"):
        if not table and float(frame.slope) == 0:
            raise InvdiffError(f"{frame.what} has a RescaleSlope of 0: all its values are one.")
        for mapping in frame.d.get("RealWorldValueMappingSequence") or ():
            for code in mapping.get("MeasurementUnitsCodeSequence") or ():
                named = str(code.get("CodeValue", ""))
                if named and named not in ("[hnsf'U]", "hnsf'U"):
                    raise InvdiffError(
                        f"{frame.what} maps its values to {named}, which are not Hounsfield units."
                    )


def _stored(frame: Frame) -> np.ndarray:
    """(H, W) of the stored numbers."""
    d = frame.d
    h, w = int(d.Rows), int(d.Columns)
    check_size((int(d.get("NumberOfFrames", 1) or 1), h, w), 4, str(frame.file))
    _with_syntax(d)
    _check_decodable(frame.file, d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.asarray(d.pixel_array)
    return array.reshape(-1, h, w)[frame.index]


def _with_syntax(d: Any) -> None:
    """Give a data set without group 2 the transfer syntax in which it was read."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(d, "file_meta", None) is None:
        d.file_meta = FileMetaDataset()
    if d.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = d.original_encoding
    plain = ExplicitVRLittleEndian if little is not False else ExplicitVRBigEndian
    d.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain


def _check_decodable(file: Path, d: Any) -> None:
    """Raise InvdiffError, with what to install, where the pixels cannot be decoded."""
    from pydicom.pixels import get_decoder

    syntax = d.file_meta.TransferSyntaxUID
    try:
        able = get_decoder(syntax).is_available
    except NotImplementedError:
        raise InvdiffError(
            f"{file} is stored as {syntax.name}, which is not read; convert it to an uncompressed "
            "file, for example with gdcmconv --raw."
        ) from None
    if not able:
        package = PACKAGES.get(str(syntax), "'invdiff[io]'")
        raise InvdiffError(
            f"{file} is compressed as {syntax.name}, whose decoder is not installed; run pip "
            f"install {package}, or convert it with gdcmconv --raw."
        )


def own_type(d: Any, value: Any) -> int:
    """A number in the type of the pixels, whatever VR it was written with (PS3.3 C.7.5.1.1.2).

    US and SS of one bit pattern are one value: modulo 2^BitsAllocated.
    """
    if isinstance(value, bytes):
        value = int.from_bytes(value[: int(d.BitsAllocated) // 8], "little")
    bits = int(d.BitsAllocated)
    pattern = int(value) & (2**bits - 1)
    signed = int(d.get("PixelRepresentation", 0) or 0) == 1
    return pattern - 2**bits if signed and pattern >= 2 ** (bits - 1) else pattern


def _padding(d: Any, stored: np.ndarray) -> np.ndarray:
    """Which stored values are padding: PixelPaddingValue, or the range to its limit."""
    value, limit = d.get("PixelPaddingValue"), d.get("PixelPaddingRangeLimit")
    if value is None or stored.dtype.kind not in "iu":
        return np.zeros(stored.shape, bool)
    ends = [own_type(d, value), own_type(d, value if limit is None else limit)]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _looked_up(d: Any, item: Any, stored: np.ndarray) -> np.ndarray:
    """Stored values through a modality lookup table (PS3.3 C.11.1.1.1)."""
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    count = (count & 0xFFFF) or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, "<u2" if len(data) >= 2 * count else "u1")
    else:
        table = np.asarray(data).astype(np.int64) & (2**16 - 1)
    if len(table) < count or not 8 <= bits <= 16:
        raise InvdiffError(f"a lookup table holds {len(table)} values of {bits} bits, not {count}")
    index = (stored.astype(np.int64) - own_type(d, first)).clip(0, count - 1)
    return np.asarray(table[:count][index], np.float32)
