"""Animations, frame by frame as they are given: none is left out because it equals the one before,
and none is held. Pillow encodes each frame; what is between them is written here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from invdiff.files.write import SIGNATURE, png_chunks


@dataclass(frozen=True)
class Still:
    """A frame: a picture of mode L, RGB or RGBA, and for how many milliseconds it is shown."""

    image: Image.Image
    milliseconds: int


def write_gif(file: BinaryIO, frames: Iterator[Still], count: int, loop: int | None) -> None:
    """Write frames as GIF89a (CompuServe 1990), each with its own table of up to 256 colours.

    Grey frames keep their values. loop: how often they are shown, 0 for ever; None for once.
    """
    for number, frame in enumerate(frames):
        width, height = frame.image.size
        if number == 0:
            file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
            if loop is not None:
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loop, 0))
        table, clear, data = _one_gif(frame.image)
        # shown for so long, and then cleared (disposal 2)
        shown = min(frame.milliseconds // 10, 65535)
        flags = 2 << 2 | (clear is not None)
        file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", flags, shown, clear or 0, 0))
        size = (len(table) // 3).bit_length() - 2
        file.write(b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0x80 | size))
        file.write(table + data)
    file.write(b"\x3b")


def _one_gif(image: Image.Image) -> tuple[bytes, int | None, bytes]:
    """(table of colours, index of what is transparent, compressed pixels) of a picture."""
    alone = io.BytesIO()
    image.save(alone, "GIF", interlace=False)
    found, at = alone.getvalue(), 13
    table, clear = b"", None
    if found[10] & 0x80:
        table = found[at : at + 3 * 2 ** ((found[10] & 7) + 1)]
        at += len(table)
    while found[at] == 0x21:  # extensions
        if found[at + 1] == 0xF9 and found[at + 3] & 1:
            clear = found[at + 6]
        at = _after_blocks(found, at + 2)
    flags, at = found[at + 9], at + 10
    if flags & 0x80:
        table = found[at : at + 3 * 2 ** ((flags & 7) + 1)]
        at += len(table)
    return table, clear, found[at : _after_blocks(found, at + 1)]


def _after_blocks(data: bytes, at: int) -> int:
    """Where blocks end, each with its length before it, the last of length 0."""
    while data[at]:
        at += data[at] + 1
    return at + 1


def write_apng(file: BinaryIO, frames: Iterator[Still], count: int, loop: int | None) -> None:
    """Write frames of one mode as an animated PNG (PNG, third edition, section 11.3.6)."""
    number = 0

    def chunk(name: bytes, body: bytes) -> None:
        file.write(struct.pack(">I", len(body)) + name + body)
        file.write(struct.pack(">I", zlib.crc32(name + body)))

    file.write(SIGNATURE)
    for k, frame in enumerate(frames):
        alone = io.BytesIO()
        frame.image.save(alone, "PNG")
        chunks = png_chunks(alone.getvalue())
        if k == 0:
            chunk(b"IHDR", next(body for name, body in chunks if name == b"IHDR"))
            chunk(b"acTL", struct.pack(">II", count, loop or 0))
        ms = frame.milliseconds
        delay = (ms, 1000) if ms < 2**16 else (min(ms // 1000, 65535), 1)
        place = (number, *frame.image.size, 0, 0)
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", *place, *delay, 0, 0))
        number += 1
        for body in (body for name, body in chunks if name == b"IDAT"):
            if k == 0:
                chunk(b"IDAT", body)
            else:
                chunk(b"fdAT", struct.pack(">I", number) + body)
                number += 1
    chunk(b"IEND", b"")


def write_webp(file: BinaryIO, frames: Iterator[Still], count: int, loop: int | None) -> None:
    """Write frames as an animated WebP without loss (RFC 9649, section 2.7)."""
    file.write(bytes(12))
    for k, frame in enumerate(frames):
        size = b"".join(struct.pack("<I", n - 1)[:3] for n in frame.image.size)
        if k == 0:
            flags = 0x02 | 0x10 * (frame.image.mode == "RGBA")  # an animation, and alpha
            file.write(b"VP8X" + struct.pack("<IBBBB", 10, flags, 0, 0, 0) + size)
            file.write(b"ANIM" + struct.pack("<IIH", 6, 0, loop or 0))
        alone = io.BytesIO()
        frame.image.save(alone, "WEBP", lossless=True, exact=True)
        data = _webp_data(alone.getvalue())
        shown = struct.pack("<I", min(frame.milliseconds, 2**24 - 1))[:3]
        body = bytes(6) + size + shown + b"\x02" + data  # not blended with what was there
        file.write(b"ANMF" + struct.pack("<I", len(body)) + body)
    end = file.tell()
    file.seek(0)
    file.write(b"RIFF" + struct.pack("<I", end - 8) + b"WEBP")
    file.seek(end)


def _webp_data(found: bytes) -> bytes:
    """The chunks of a still WebP that hold its pixels."""
    at, kept = 12, b""
    while at < len(found):
        length = 8 + struct.unpack("<I", found[at + 4 : at + 8])[0]
        length += length % 2
        if found[at : at + 4] in (b"VP8L", b"VP8 ", b"ALPH"):
            kept += found[at : at + length]
        at += length
    return kept


WRITERS: dict[str, Callable[[BinaryIO, Iterator[Still], int, int | None], Any]] = {
    ".gif": write_gif,
    ".apng": write_apng,
    ".webp": write_webp,
}
"""By the ending."""
