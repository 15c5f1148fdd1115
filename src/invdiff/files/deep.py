"""Pixels of more than 8 bits, and those whose meaning a TIFF tells by its tags."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invdiff.core import InvdiffError
from invdiff.files.arrays import NOTHING, Told, span_of
from invdiff.files.raster import Raster, check_pixels
from invdiff.files.tiffs import read_page

HALVES = {
    "RGB;16B": ("RGB", "RGB;16B", "RGB;16L"),
    "RGB;16L": ("RGB", "RGB;16L", "RGB;16B"),
    "RGBA;16B": ("RGBA", "RGBA;16B", "RGBA;16L"),
    "RGBA;16L": ("RGBA", "RGBA;16L", "RGBA;16B"),
    "RGBX;16B": ("RGB", "RGBX;16B", "RGBX;16L"),
    "RGBX;16L": ("RGB", "RGBX;16L", "RGBX;16B"),
}
"""By Pillow's raw mode of 16-bit colours: the mode, and the raw modes that take each number's high
byte and its low byte: Pillow keeps one of the two, so that a file is decoded twice."""
NATIVE = "L" if sys.byteorder == "little" else "B"
BITS, PHOTOMETRIC, PLANAR, EXTRA, FORMAT, SMIN, SMAX = 258, 262, 284, 338, 339, 340, 341
"""Tags of TIFF 6.0: BitsPerSample, PhotometricInterpretation, PlanarConfiguration, ExtraSamples,
SampleFormat, SMinSampleValue, SMaxSampleValue."""
DEPTHS = {1: "grey", 2: "grey with transparency", 3: "colour", 4: "colour with transparency"}


def deep(
    image: Image.Image, path: Path, frame: int, raw: str, told: Told = NOTHING
) -> Raster | None:
    """The picture of an open file, where 8 bits are not all that it holds; None where they are.

    raw: its `raw_mode`, of before it was decoded.
    """
    if image.format == "PNG":
        return _png(image, path, raw, told)
    if image.format == "TIFF" and _needs_tags(image):
        return _tiff(image, path, frame, raw, told)
    return None


def _png(image: Image.Image, path: Path, raw: str, told: Told) -> Raster | None:
    """16-bit colours and grey with alpha; keys of transparency of 16 bits."""
    if raw in ("L;2", "L;4") and isinstance(image.info.get("transparency"), int):
        image.load()  # the key is on the file's scale, pixels are on that of bytes
        image.info["transparency"] *= 255 // (2 ** int(raw[-1]) - 1)
        return None
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)[..., None]
    elif raw in HALVES:
        values = _both_halves(path, raw, 0)
    elif raw == "LA;16B":
        with Image.open(path) as again:
            again.tile = _with_raw(again, "RGBA")
            pairs = np.asarray(again)
        values = pairs.reshape(*pairs.shape[:2], 2, 2).astype(np.uint16)
        values = values[..., 0] * 256 + values[..., 1]
    else:
        return None
    colours, alpha = _split(values)
    key = image.info.get("transparency")
    if alpha is None and key is not None:
        same = (colours == np.asarray(key).reshape(1, 1, -1)).all(2)
        alpha = np.where(same, 0, 65535).astype(np.uint16)
    return sixteen(colours, alpha, told)


def sixteen(colours: np.ndarray, alpha: np.ndarray | None, told: Told) -> Raster:
    """Numbers of 16 bits."""
    black, white = told.span or (0.0, 65535.0)
    count = colours.shape[2] + (alpha is not None)
    notes, top = list[str](), int(colours.max(initial=0))
    if told.span is None and 0 < top <= 4095:
        notes.append(f"its largest number is {top} of 65535; if white is 4095, give --range 0,4095")
    return Raster(colours, black, white, alpha, 16, f"16-bit {DEPTHS[count]}", tuple(notes))


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours, and alpha where there are two or four channels."""
    if values.shape[2] in (2, 4):
        return values[..., :-1], values[..., -1]
    return values, None


def raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode of a file that was not decoded yet, with the byte order of the machine for
    the one of a decoder."""
    opened: Any = image
    if not getattr(opened, "tile", None):
        return ""
    args: Any = tuple(opened.tile[0])[3]
    name = args if isinstance(args, str) else args[0] if args else ""
    return name[:-1] + NATIVE if isinstance(name, str) and name.endswith(";16N") else str(name)


def _with_raw(image: Any, raw: str) -> list[Any]:
    """The tiles of a file, to be decoded by another raw mode."""
    tiles = []
    for tile in image.tile:
        codec, box, offset, args = tuple(tile)
        args = raw if isinstance(args, str) else (raw, *args[1:])
        tiles.append(type(tile)(codec, box, offset, args) if hasattr(tile, "_fields")
                     else (codec, box, offset, args))  # fmt: skip
    return tiles


def _both_halves(path: Path, raw: str, frame: int) -> np.ndarray:
    """(H, W, 3 or 4) uint16 of a file that Pillow decodes to 8 bits."""
    mode, *halves = HALVES[raw]
    parts = []
    for half in halves:
        with Image.open(path) as again:
            if frame:
                again.seek(frame)
            again.tile = _with_raw(again, half)
            parts.append(np.asarray(again).astype(np.uint16))
    high, low = parts
    return high * 256 + low


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _needs_tags(image: Image.Image) -> bool:
    """Whether a TIFF holds other numbers than bytes, or says what black and white are."""
    tags = _tags(image)
    bits, kinds = _tuple(tags.get(BITS, 1)), _tuple(tags.get(FORMAT, 1))
    return max(bits) > 8 or any(k not in (1, 4) for k in kinds) or SMIN in tags or SMAX in tags


def _tiff(image: Image.Image, path: Path, frame: int, raw: str, told: Told) -> Raster | None:
    """A TIFF by its tags: through Pillow where it loses nothing, else through tifffile."""
    tags = _tags(image)
    bits, kinds = _tuple(tags.get(BITS, 1)), _tuple(tags.get(FORMAT, 1))
    photometric = int(tags.get(PHOTOMETRIC, 1))
    inverted = False
    if photometric in (5, 8, 9, 10):  # CMYK, CIE L*a*b*: Pillow converts them, with 8 bits
        return None
    extra = [int(v) for v in _tuple(tags.get(EXTRA, ()))]
    if raw in HALVES and int(tags.get(PLANAR, 1)) == 1:
        values, extra = _both_halves(path, raw, frame), extra or [2] * (raw[:4] == "RGBA")
        extra = [e for e in extra if e] if raw.startswith("RGBX") else extra
    elif image.mode in ("I", "F", "L") or image.mode.startswith("I;"):
        values = _grey(image, bits[0], kinds[0])
        inverted = photometric == 0 and (bits[0] > 8 or kinds[0] == 2)
    else:
        page = read_page(path, frame)
        raster = meaning(page.values, tags, bits[0], page.inverted, page.extra, str(path), told)
        return replace(raster, loaded=False)
    return meaning(values, tags, bits[0], inverted, extra, str(path), told)


def _grey(image: Image.Image, bits: int, kind: int) -> np.ndarray:
    """(H, W, 1) of Pillow's modes of one channel, with the sign that the file tells."""
    values = np.asarray(image)
    if image.mode == "I" and kind == 1 and bits == 32:
        values = values.view(np.uint32)
    elif image.mode == "I" and kind == 2 and bits == 16:
        values = values.astype(np.int16)
    elif image.mode == "L" and kind == 2:
        values = values.view(np.int8)
    elif image.mode.startswith("I;"):
        values = values.astype(np.uint16)
    return values[..., None]


def meaning(
    values: np.ndarray,
    tags: Any,
    bits: int,
    inverted: bool,
    extra: list[int],
    name: str,
    told: Told,
) -> Raster:
    """The raster of stored samples (H, W, samples) by the tags of their TIFF.

    inverted: whether white is the smallest number (PhotometricInterpretation 0). extra: what the
    samples beyond grey or colour are: 1 associated alpha, 2 alpha, 0 unspecified.
    """
    colours = 3 if values.shape[2] >= 3 and len(extra) <= values.shape[2] - 3 else 1
    check_pixels((values.shape[0], values.shape[1]), name)
    alpha, rest = None, values[..., :colours]
    if extra[:1] in ([1], [2]) and values.shape[2] > colours:
        alpha = values[..., colours]
    depth = 32 if values.dtype.kind == "f" else 8 if bits <= 8 else 16
    floating = depth == 32
    black, white = _ends(rest, tags, bits, name, told)
    if alpha is not None:
        top = 1.0 if floating else float(np.iinfo(values.dtype).max)
        share = np.clip(alpha.astype(np.float64) / top, 0, 1)
        if extra[0] == 1:  # associated: colours were multiplied by it
            with np.errstate(divide="ignore", invalid="ignore"):
                rest = np.where(share[..., None] > 0, rest / share[..., None], 0)
            rest = rest if floating else np.clip(rest.round(), 0, top).astype(values.dtype)
        alpha = (share * (255 if depth == 8 else 65535)).round()
        alpha = alpha.astype(np.uint8 if depth == 8 else np.uint16)
    if inverted:
        black, white = white, black
    kind = DEPTHS[colours + (alpha is not None)]
    if floating and colours == 1 and alpha is None:
        kind = "grey, float"
    else:
        kind = f"{'float' if floating else f'{bits}-bit'} {kind}"
    return Raster(rest, black, white, alpha, depth, kind)


def _ends(values: np.ndarray, tags: Any, bits: int, name: str, told: Told) -> tuple[float, float]:
    """The numbers of black and white: as told, as the tags tell, or as the type does."""
    if told.span is not None:
        return told.span
    if SMIN in tags or SMAX in tags:
        info = None if values.dtype.kind == "f" else np.iinfo(values.dtype)
        usual = (0.0, 1.0) if info is None else (float(info.min), float(info.max))
        low, high = (
            float(_tuple(tags.get(tag, end))[0])
            for tag, end in zip((SMIN, SMAX), usual, strict=True)
        )
        if not low < high or not np.isfinite(high - low):
            raise InvdiffError(
                f"{name} says that its values run from {low:g} to {high:g}, which is no range; "
                "save it without SMinSampleValue and SMaxSampleValue."
            )
        return low, high
    if values.dtype == np.uint16 and bits < 16:
        return 0.0, float(2**bits - 1)
    if values.dtype == np.uint32 and values.max(initial=0) > 2**24:
        return 0.0, float(2**32 - 1)
    return span_of(values, name, told)


def lost_bits(image: Image.Image, path: Path) -> int:
    """Bits of a number in a file whose colours Pillow cuts to 8; 0 where it does not, as far as its
    header tells."""
    if image.mode not in ("RGB", "RGBA"):
        return 0
    with open(path, "rb") as file:
        head = file.read(4096)
    if image.format == "PPM":
        words = head.split(None, 4)
        top = int(words[3]) if len(words) > 3 and words[3].isdigit() else 255
        return top.bit_length() if top > 255 else 0
    if image.format == "JPEG2000" and (at := head.find(b"\xff\x51")) >= 0:
        bits = 1 + (head[at + 40] & 0x7F) if len(head) > at + 40 else 8
        return bits if bits > 8 else 0
    if image.format == "AVIF" and (at := head.find(b"av1C")) >= 0 and len(head) > at + 6:
        return (12 if head[at + 6] & 0x20 else 10) if head[at + 6] & 0x40 else 0
    if image.format == "SGI":
        return 16 if head[3:4] == b"\2" else 0
    return int(image.info.get("bit_depth", 0)) if int(image.info.get("bit_depth", 8)) > 8 else 0
