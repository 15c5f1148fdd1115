"""Whether an animation or a video is all there: what its container tells, without decoding.

A reader of the pictures comes to the end of a file that was cut off, and takes what lies before it
for all. The containers tell more: GIF (GIF89a, appendix A and B) by the blocks that are not ended;
RIFF (AVI, WebP), ISO media (MP4, MOV; ISO/IEC 14496-12, section 4.2) and EBML (MKV, WebM; RFC 8794,
section 6) by lengths that go beyond the end. MPEG program streams tell nothing.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from invdiff.core import InvdiffError

ISO = (".mp4", ".m4v", ".mov")
RIFF = (".avi", ".webp")
EBML = (".mkv", ".webm")
SEGMENT = 0x18538067
"""EBML element of all that a Matroska file holds."""


def cut_off(path: str, count: int, what: str) -> InvdiffError:
    """The error of a file that ends after so many pages or frames."""
    return InvdiffError(
        f"{path} breaks off after {count} {what}{'s' * (count != 1)}; copy or save it once more, "
        "or take one of them with --frame, from 0."
    )


def breaks_off(path: str) -> bool:
    """Whether a file was cut off, as far as its kind tells. Raises OSError."""
    ending = Path(path).suffix.lower()
    if ending == ".gif":
        return whole_pictures(path)[1]
    kinds = ((ISO, _iso), (RIFF, _riff), (EBML, _ebml))
    read = next((one for endings, one in kinds if ending in endings), None)
    if read is None:
        return False
    with open(path, "rb") as file:
        return read(file, os.fstat(file.fileno()).st_size)


def whole_pictures(path: str) -> tuple[int, bool]:
    """Pictures of a GIF that are whole, and whether it was cut off after them. Raises OSError.

    A file without the last byte, which marks its end, is not cut: programs leave it out.
    """
    count, ended = 0, True
    with open(path, "rb") as file:
        head = file.read(13)
        if len(head) < 13 or head[:3] != b"GIF":
            return 0, False
        file.seek(_colours(head[10]), os.SEEK_CUR)
        while (kind := file.read(1)) in (b"!", b","):
            ended = False
            about = file.read(1 if kind == b"!" else 9)
            if kind == b"," and len(about) == 9:
                file.seek(_colours(about[8]) + 1, os.SEEK_CUR)
            if not _blocks(file):
                return count, True
            if kind == b",":
                count += 1
            ended = kind == b"," or about != b"\xf9"  # a picture follows what controls it
    return count, kind == b"" and not ended


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks(file: BinaryIO) -> bool:
    """Pass over blocks of a GIF; whether the empty one that ends them is there."""
    while length := file.read(1):
        if not length[0]:
            return True
        file.seek(length[0], os.SEEK_CUR)
    return False


def _iso(file: BinaryIO, size: int) -> bool:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        (length,) = struct.unpack(">I", head[:4])
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length < 8:  # 0: up to the end; what is no box ends the search
            return False
        at += length
    return at > size


def _riff(file: BinaryIO, size: int) -> bool:
    """Of the first list alone: AVI has more of them beyond 1 GB."""
    head = file.read(8)
    return head[:4] == b"RIFF" and size < 8 + struct.unpack("<I", head[4:].ljust(4, b"\0"))[0]


def _ebml(file: BinaryIO, size: int) -> bool:
    for _ in range(2):  # the header, and the segment
        kind = _number(file, marked=True)
        length = _number(file)
        if kind is None or length is None:
            return False
        if kind == SEGMENT:
            return file.tell() + length > size
        file.seek(length, os.SEEK_CUR)
    return False


def _number(file: BinaryIO, marked: bool = False) -> int | None:
    """A number of variable width (RFC 8794, section 4); None for an unknown one, or none at all.

    marked: with the bit that tells the width, as in what names an element.
    """
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = int.from_bytes(first + rest, "big")
    if len(rest) < width - 1:
        return None
    below = value & ((1 << 7 * width) - 1)
    if marked:
        return value
    return None if below == (1 << 7 * width) - 1 else below
