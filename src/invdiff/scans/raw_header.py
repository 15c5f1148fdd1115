"""The header of ISMRMRD raw data (Inati et al. 2017): what one of its encodings tells."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invdiff.core import InvdiffError
from invdiff.scans.files import inside

Sizes = tuple[int, int, int]
Lengths = tuple[float, float, float]


@dataclass(frozen=True)
class Header:
    """Of one encoding: its kind, matrix sizes (x, y, z), fields of view (x, y, z) in mm (0 where it
    tells none), and the steps at the middle of k-space; None where it tells none.

    number: of the encoding, from 0; count: of encodings in the file. calibration: how the
    calibration lines were measured (embedded, separate, external, ...), "" where it is not told.
    bandwidth: relative noise bandwidth of the receiver, 1 where it is not told.
    """

    kind: str
    encoded: Sizes
    recon: Sizes
    encoded_mm: Lengths
    recon_mm: Lengths
    centres: tuple[int | None, int | None]
    number: int = 0
    count: int = 1
    calibration: str = ""
    bandwidth: float = 1.0

    def centre(self, step: int) -> int:
        """The step 1 or 2 at the middle of k-space."""
        told = self.centres[step - 1]
        return self.encoded[step] // 2 if told is None else told

    def shown(self, axis: int, n: int | None = None) -> int:
        """Pixels of an axis (0 to 2) over the field of view that the scanner shows.

        The fields of view decide: an encoded matrix over 460 mm, shown over 230 mm, keeps half of
        its pixels. The matrix that is shown tells only how far to interpolate, unless there are no
        fields of view. n: pixels of the axis; the encoded ones without it. Never more than n.
        """
        have = self.encoded[axis] if n is None else n
        encoded, recon = self.encoded_mm[axis], self.recon_mm[axis]
        if encoded <= 0 or recon <= 0:
            return min(self.recon[axis], have)
        return max(1, min(round(have * recon / encoded), have))


def read_header(group: Any, path: Path, number: int | None = None) -> Header:
    """One encoding of the XML header of an open group, the first one for None."""
    text = inside(group["xml"], path)[()]
    text = text[0] if isinstance(text, np.ndarray) else text
    return parse_header(text if isinstance(text, bytes) else str(text), path, number)


def parse_header(text: bytes | str, path: Path, number: int | None = None) -> Header:
    """One encoding of an XML header. Raises InvdiffError where it tells no sizes of it."""
    root = ElementTree.fromstring(text)
    encodings = root.findall("{*}encoding")
    if not encodings:
        raise InvdiffError(f"{path} tells of no encoding in its header.")
    chosen = number or 0
    if not 0 <= chosen < len(encodings):
        raise InvdiffError(
            f"{path} tells of {len(encodings)} encoding{'s' * (len(encodings) > 1)}, counted from "
            f"0; there is no encoding {number}."
        )
    found = encodings[chosen]

    def told(where: str) -> str | None:
        return found.findtext("/".join("{*}" + part for part in where.split("/")))

    def size(space: str) -> Sizes:
        x, y, z = (int(told(f"{space}/matrixSize/{a}") or 0) for a in "xyz")
        if min(x, y, z) < 1:
            raise InvdiffError(f"{path} tells no size of its {space} in its header.")
        return x, y, z

    def mm(space: str) -> Lengths:
        sides = [float(told(f"{space}/fieldOfView_mm/{a}") or 0) for a in "xyz"]
        if not np.isfinite(sides).all() or min(sides) < 0:
            raise InvdiffError(f"{path} tells a field of view of {sides} mm in its header.")
        return sides[0], sides[1], sides[2]

    def centre(step: int) -> int | None:
        text = told(f"encodingLimits/kspace_encoding_step_{step}/center")
        return None if text is None else int(text)

    where = "{*}acquisitionSystemInformation/{*}relativeReceiverNoiseBandwidth"
    bandwidth = float(root.findtext(where) or 1)
    return Header(
        (told("trajectory") or "").strip(),
        size("encodedSpace"),
        size("reconSpace"),
        mm("encodedSpace"),
        mm("reconSpace"),
        (centre(1), centre(2)),
        chosen,
        len(encodings),
        (told("parallelImaging/calibrationMode") or "").strip(),
        bandwidth if 0 < bandwidth <= 1 else 1.0,
    )
