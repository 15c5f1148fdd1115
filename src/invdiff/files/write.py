"""Pictures as PNG files, of 8 or 16 bits, with what their file said beside the pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from invdiff.files.metadata import Metadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}
"""Of PNG (ISO/IEC 15948, section 11.2.2), by the number of channels."""


def save_picture(
    path: Path,
    pixels: Tensor,
    alpha: Tensor | None = None,
    icc: bytes | None = None,
    depth: int = 8,
    metadata: Metadata | None = None,
) -> None:
    """Write (1 or 3, H, W) on [0, 1] as a PNG; alpha is resized to fit.

    depth: bits of a number, 8 or 16. alpha: uint8 or uint16. metadata: whose EXIF and texts are
    written too; icc is the profile.
    """
    array = levels(pixels, 8 if depth == 8 else 16)
    layer = None if alpha is None else alpha.numpy()
    if layer is not None and layer.shape != array.shape[:2]:
        layer = _resized(layer, (array.shape[0], array.shape[1]))
    more = _more(icc, metadata)
    if array.dtype == np.uint8 and (layer is None or layer.dtype == np.uint8):
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        if layer is not None:
            image.putalpha(Image.fromarray(layer))
        image.save(path, "PNG", **more)
        return
    deep = array.astype(np.uint16) * (257 if array.dtype == np.uint8 else 1)
    if layer is not None:
        layer = layer.astype(np.uint16) * (257 if layer.dtype == np.uint8 else 1)
        deep = np.dstack([deep, layer])
    path.write_bytes(png16(deep, **more))


def levels(pixels: Tensor, bits: int) -> np.ndarray:
    """(C, H, W) on [0, 1] as whole numbers of 8 or 16 bits, (H, W, C)."""
    top = 2**bits - 1
    wide = pixels.detach().cpu() if bits == 8 else pixels.detach().cpu().double()
    found = (wide * top).round().clamp(0, top).permute(1, 2, 0).contiguous().numpy()
    return found.astype(np.uint8 if bits == 8 else np.uint16)


def _resized(layer: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Alpha at another size, by Pillow's bicubic filter."""
    deep = layer.dtype != np.uint8
    image = Image.fromarray(layer.astype(np.float32) if deep else layer)
    found = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return found.round().clip(0, 65535).astype(np.uint16) if deep else found


def _more(icc: bytes | None, metadata: Metadata | None) -> dict[str, object]:
    """Options of Pillow for what lies beside the pixels."""
    found: dict[str, object] = {"icc_profile": icc}
    if metadata is None:
        return found
    if metadata.exif:
        found["exif"] = metadata.exif
    if metadata.text:
        info = PngImagePlugin.PngInfo()
        for key, value in metadata.text.items():
            _add_text(info, key, value)
        found["pnginfo"] = info
    return found


def _add_text(info: PngImagePlugin.PngInfo, key: str, value: str) -> None:
    """A text as tEXt where it is Latin-1, else as iTXt, which XMP always is."""
    try:
        key.encode("latin-1")
    except UnicodeError:
        return
    try:
        plain = not key.startswith("XML:") and bool(value.encode("latin-1"))
    except UnicodeError:
        plain = False
    if plain:
        info.add_text(key, value)
    else:
        info.add_itxt(key, value)


def png16(array: np.ndarray, **more: object) -> bytes:
    """A PNG file of (H, W, 1 to 4) uint16 numbers; more: as Pillow's PNG takes it.

    Pillow writes no 16-bit colours: the chunks beside the pixels are its own, of a picture of one
    pixel, and the pixels follow ISO/IEC 15948, each row filtered by the one above it (section 9.2).
    """
    small = io.BytesIO()
    mode = "L" if array.shape[2] < 3 else "RGB"
    Image.new(mode, (1, 1)).save(small, "PNG", **more)
    height, width, channels = array.shape
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = array.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], 1)
    data = zlib.compress(filtered.tobytes(), 6)
    chunks = [(b"IHDR", head)]
    chunks += [c for c in png_chunks(small.getvalue()) if c[0] not in (b"IHDR", b"IDAT", b"IEND")]
    chunks += [(b"IDAT", data), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def png_chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file, by name."""
    at, found = len(SIGNATURE), []
    while at < len(file):
        (length,) = struct.unpack(">I", file[at : at + 4])
        found.append((file[at + 4 : at + 8], file[at + 8 : at + 8 + length]))
        at += 12 + length
    return found
