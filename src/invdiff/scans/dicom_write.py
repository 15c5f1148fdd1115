"""Derived CT slices as DICOM: the headers of the slices that they were made of, and new pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.dicom_files import pydicom_for
from invdiff.scans.dicom_values import Frame, own_type

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PixelDataProviderURL")
STALE = (
    *PIXELS,
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "DataSetTrailingPadding",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "RealWorldValueMappingSequence",
)
"""What is no longer true of new pixels, or was of all frames of a file."""
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SERIES_STEP = 1000
"""Added to the number of the series, so that it stands beside the one that it was made of."""


def header_of(frame: Frame) -> bytes:
    """The data set of a slice without its pixels; that of a frame says what its groups told."""
    pydicom = pydicom_for(frame.file)
    d = pydicom.Dataset()
    for element in frame.d:
        if element.keyword not in STALE and not _is_overlay(element.tag):
            d.add(element)
    d.remove_private_tags()
    d.SOPClassUID = CT_IMAGE
    for name, value in (
        ("ImagePositionPatient", frame.position),
        ("ImageOrientationPatient", frame.turn),
        ("PixelSpacing", frame.spacing),
    ):
        if value is not None:
            setattr(d, name, value)
    if "ModalityLUTSequence" in d or frame.slope is None:
        d.pop("ModalityLUTSequence", None)
        d.RescaleSlope, d.RescaleIntercept = 1, -1024
    else:
        d.RescaleSlope, d.RescaleIntercept = frame.slope, frame.intercept
    d.RescaleType = "HU"
    if "NumberOfFrames" in frame.d:
        d.InstanceNumber = frame.index + 1
    file = io.BytesIO()
    pydicom.dcmwrite(file, d, implicit_vr=False, little_endian=True)
    return file.getvalue()


def _is_overlay(tag: Any) -> bool:
    return 0x6000 <= tag.group <= 0x60FF and tag.group % 2 == 0


def write_dicom(
    folder: Path, hu: Tensor, headers: Sequence[bytes], description: str, held: Tensor
) -> None:
    """Write slices (slices, H, W) in HU as a new series 0001.dcm, 0002.dcm, ... into a new folder.

    headers: of the slices that they were made of (`header_of`), with their geometry and rescaling:
    values are rounded to steps of RescaleSlope, and cut to what the stored type holds. UIDs are
    new, and the same for the same values. description: what was done. held: which pixels (slices,
    H, W) are as they were: all others are no padding, and get no value of it.
    Raises InvdiffError where a header cannot be written.
    """
    folder.mkdir()
    digest = hashlib.sha256(hu.contiguous().numpy().tobytes())
    digest.update(description.encode())
    content = digest.hexdigest()
    for k, (values, header) in enumerate(zip(hu, headers, strict=True), 1):
        file = folder / f"{k:04d}.dcm"
        numbers, kept = np.asarray(values.numpy(), np.float64), held[k - 1].numpy()
        try:
            _write(file, numbers, kept, header, description, content)
        except Exception as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InvdiffError(
                f"Slice {k} cannot be written as DICOM ({reason}); its header holds what the "
                "standard does not allow."
            ) from error


def _write(
    file: Path, hu: np.ndarray, held: np.ndarray, header: bytes, description: str, content: str
) -> None:
    pydicom = pydicom_for(file)
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    d = pydicom.dcmread(io.BytesIO(header), force=True)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source, series = str(d.get("SOPInstanceUID", "")), str(d.get("SeriesInstanceUID", ""))
    place = str(d.get("ImagePositionPatient", "")) + str(d.get("InstanceNumber", ""))
    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = d.SOPClassUID, source
    if source:
        d.SourceImageSequence = [reference]
    d.SOPInstanceUID = generate_uid(entropy_srcs=[source, place, content])
    d.SeriesInstanceUID = generate_uid(entropy_srcs=[series, content])
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT_IMAGE, d.SOPInstanceUID
    d.SeriesNumber = int(d.get("SeriesNumber") or 0) + SERIES_STEP
    d.SeriesDescription = f"{str(d.get('SeriesDescription') or '')[:40]} denoised".strip()
    kinds = list(d.get("ImageType") or ["DERIVED", "PRIMARY", "AXIAL"])
    d.ImageType = ["DERIVED", *kinds[1:]] if len(kinds) > 1 else ["DERIVED", "PRIMARY", "AXIAL"]
    d.DerivationDescription = description[:1024]
    d.PixelData = _stored(d, hu, held).tobytes()
    d["PixelData"].VR = "OW"
    d.Rows, d.Columns = hu.shape
    d.SamplesPerPixel = 1
    if d.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        d.PhotometricInterpretation = "MONOCHROME2"
    d.file_meta, d.preamble = meta, b"\0" * 128
    d.save_as(file, enforce_file_format=True)


def _stored(d: Any, hu: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Stored values of hu (H, W) in the type of the header, little endian."""
    bits = int(d.get("BitsAllocated", 16))
    if bits not in (8, 16, 32):
        bits = 16
    used = min(int(d.get("BitsStored", bits) or bits), bits)
    signed = int(d.get("PixelRepresentation", 0) or 0) == 1
    low = -(2 ** (used - 1)) if signed else 0
    high = low + 2**used - 1
    if bits == 8:  # 8 bits were decompressed or are too few for new values
        bits = 16
    d.BitsAllocated, d.BitsStored, d.HighBit = bits, used, used - 1
    d.PixelRepresentation = int(signed)
    values = (hu - float(d.RescaleIntercept)) / float(d.RescaleSlope)
    kind = f"<{'i' if signed else 'u'}{bits // 8}"
    return _beside_padding(d, np.rint(values).clip(low, high), held, low, high).astype(kind)


def _beside_padding(
    d: Any, stored: np.ndarray, held: np.ndarray, low: int, high: int
) -> np.ndarray:
    """Values that would read as padding, moved to the next one that does not."""
    value, limit = d.get("PixelPaddingValue"), d.get("PixelPaddingRangeLimit")
    if value is None:
        return stored
    ends = [own_type(d, value), own_type(d, value if limit is None else limit)]
    first, last = min(ends), max(ends)
    inside = (stored >= first) & (stored <= last) & ~held
    down = (stored - first <= last - stored) & (first > low) | (last >= high)
    return np.where(inside, np.where(down, first - 1, last + 1), stored)


def packed(frames: Sequence[Frame]) -> tuple[Tensor, tuple[int, ...]]:
    """The headers of slices as one row of bytes, and how long each is."""
    found = [header_of(frame) for frame in frames]
    joined = np.frombuffer(b"".join(found), np.uint8).copy()
    return torch.from_numpy(joined), tuple(map(len, found))


def unpacked(headers: Tensor, lengths: Sequence[int]) -> list[bytes]:
    """The headers of `packed`."""
    whole, found, start = headers.numpy().tobytes(), [], 0
    for length in lengths:
        found.append(whole[start : start + length])
        start += length
    return found
