"""What a picture's file says beside its pixels: orientation, EXIF, colour profile, text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
THUMBNAIL = 1
"""The directory of EXIF that holds a small copy of the picture."""
XMP = "XML:com.adobe.xmp"
"""The keyword of XMP in a PNG (XMP specification, part 3, section 1.1.5)."""
SPACES = {1: b"GRAY", 3: b"RGB "}
"""Colour space of a profile (ICC.1:2022, table 19) by the channels of pixels that it describes."""
OTHERS = frozenset((b"GRAY", b"RGB ", b"CMYK", b"Lab ", b"XYZ ", b"YCbr", b"HSV ", b"CMY "))
LONGEST = 1_000_000
"""Bytes of EXIF, of a text, or of all texts, that are kept."""


@dataclass(frozen=True)
class Metadata:
    """What is written again with a result.

    exif: the EXIF block, its orientation reset and its thumbnail left out, for both tell of the
    pixels as they were stored. text: keywords and texts. icc: the colour profile.
    """

    exif: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    icc: bytes | None = None

    def profile(self, channels: int) -> bytes | None:
        """The colour profile, unless it says that it is of other colours than so many channels."""
        if self.icc is None:
            return None
        space = self.icc[16:20]
        return None if space in OTHERS and space != SPACES.get(channels) else self.icc


def orientation_of(image: Image.Image) -> tuple[int, int | None]:
    """(the EXIF orientation, 1 to 8; one that is none of these, as 9, or None)."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
        number = int(value[0] if isinstance(value, tuple) else value)
    except Exception:  # EXIF blocks of any program
        return 1, None
    if 1 <= number <= 8:
        return number, None
    return 1, number or None


def metadata_of(image: Image.Image) -> Metadata:
    """EXIF, texts and profile of an open picture; what cannot be read is left out."""
    icc = image.info.get("icc_profile")
    return Metadata(_exif(image), _texts(image), icc if isinstance(icc, bytes) and icc else None)


def _exif(image: Image.Image) -> bytes | None:
    """The EXIF block of a file that has one; of a TIFF its tags that say who, when and with what,
    for the others tell how pixels are stored."""
    try:
        exif = image.getexif()
        if not exif:
            return None
        if image.format == "TIFF":
            kept = {tag: exif[tag] for tag in TOLD if tag in exif}
            own = {tag: exif.get_ifd(tag) for tag in (0x8769, 0x8825) if exif.get_ifd(tag)}
            exif = Image.Exif()
            for tag, value in (kept | own).items():
                exif[tag] = value
            if not kept and not own:
                return None
        elif ORIENTATION in exif:
            exif[ORIENTATION] = 1
        exif._ifds.pop(THUMBNAIL, None)
        block = exif.tobytes()
    except Exception:
        return None
    return block if 0 < len(block) <= LONGEST else None


TOLD = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""Description, maker, model, software, date, artist, copyright (EXIF 2.32, section 4.6.4)."""


def _texts(image: Image.Image) -> dict[str, str]:
    found: dict[str, str] = {}
    texts: Any = getattr(image, "text", None) if image.format == "PNG" else None
    for key, value in dict(texts or {}).items():
        found[str(key)] = str(value)
    comment = image.info.get("comment")
    if comment and "Comment" not in found:
        found["Comment"] = _words(comment)
    xmp = image.info.get("xmp")
    if xmp and XMP not in found:
        found[XMP] = _words(xmp)
    total, kept = 0, {}
    for key, value in found.items():
        total += len(value)
        if 1 <= len(key) <= 79 and key.isprintable() and total <= LONGEST:
            kept[key] = _upright(value) if key == XMP else value
    return kept


def _words(value: Any) -> str:
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else str(value)


def _upright(xmp: str) -> str:
    """XMP with its orientation reset."""
    import re

    xmp = re.sub(r'(tiff:Orientation=")[0-9]+"', r'\g<1>1"', xmp)
    return re.sub(r"(<tiff:Orientation>)[0-9]+<", r"\g<1>1<", xmp)
