"""The picture in a file: which one of several, how it is stored, and what the file tells of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from invdiff.core import InvdiffError
from invdiff.files.advice import how_to_convert, kind_of
from invdiff.files.arrays import NOTHING, Told, check_file, span_of
from invdiff.files.deep import deep, lost_bits, meaning, raw_mode
from invdiff.files.metadata import ORIENTATION, Metadata, metadata_of, orientation_of
from invdiff.files.raster import Raster, check_pixels, too_large, turned, words
from invdiff.files.tiffs import SUBFILE, read_page, sub_pages

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N", "I"), "16-bit grey"),
    "F": "grey, float",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour with transparency",
    "CMYK": "CMYK",
}
"""Pillow's modes that are read as they are, in words; all others are converted."""
MOST_FRAMES = 1000
"""Pictures of a file that are looked at."""
HEIC = ("heic", "heif", "hif")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a file, upright.

    raster: its pixels. metadata: what the file says beside them. about: the file in words.
    """

    raster: Raster
    metadata: Metadata
    about: str


def decode_file(path: Path, told: Told = NOTHING) -> Picture:
    """The full picture in a file, upright.

    Of several pictures it is the first that is not marked as reduced; what was passed over is told.
    Raises InvdiffError when there is no such file, it holds no picture that is read here, or one
    of over 100 megapixels.
    """
    check_file(path)
    if kind_of(path) in HEIC:
        _open_heic(path)
    with _opening(path):
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            if not is_tiff(path):
                raise
            return _numbers(path, told)
        with image:
            return _decoded(image, path, told)


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF, or a BigTIFF, does."""
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _numbers(path: Path, told: Told) -> Picture:
    """A TIFF of numbers that Pillow has no mode for."""
    page = read_page(path, -1)
    bits = page.tags.get(258, 8)
    bits = int(bits[0] if isinstance(bits, tuple) else bits)
    raster = meaning(page.values, page.tags, bits, page.inverted, page.extra, str(path), told)
    value = page.tags.get(ORIENTATION, 1)
    orientation = int(value) if isinstance(value, int) and 1 <= value <= 8 else 1
    icc = page.tags.get(34675)
    passed = [f"first of {page.count} pictures"] * (page.count > 1)
    metadata = Metadata(icc=icc if isinstance(icc, bytes) else None)
    return _upright(raster, metadata, "TIFF", orientation, passed)


def _decoded(image: Image.Image, path: Path, told: Told) -> Picture:
    """The picture of an open file."""
    frame, passed = _chosen(image, path)
    check_pixels((image.height, image.width), str(path))
    raw, stored = raw_mode(image), image.mode
    orientation, unknown = orientation_of(image)
    metadata = metadata_of(image)
    if frame < 0:
        page = read_page(path, -1)
        bits = 8 * page.values.dtype.itemsize
        raster = meaning(page.values, page.tags, bits, page.inverted, page.extra, str(path), told)
        raster = replace(raster, loaded=False)
    else:
        found = deep(image, path, frame, raw, told)
        raster = found or _plain(image, str(path), metadata.icc, told)
    if image.format == "TIFF" and raster.loaded and orientation != 1:
        image.load()
        if orientation_of(image)[0] == 1:  # Pillow has turned it, and what is decoded like it
            raster = replace(raster, notes=("turned upright", *raster.notes))
            orientation = 1
    if stored in ("CMYK", "LAB"):  # pixels have other colours now
        metadata = replace(metadata, icc=None)
    notes = [f"EXIF orientation {unknown} means nothing"] * (unknown is not None)
    if bits := lost_bits(image, path):
        notes.append(f"{bits}-bit colours read with 8 bits: save it as 16-bit PNG to keep them")
    return _upright(raster, metadata, image.format or "image", orientation, passed + notes)


def _upright(
    raster: Raster, metadata: Metadata, form: str, orientation: int, said: list[str]
) -> Picture:
    """A raster as it is seen, and the file in words."""
    values = np.ascontiguousarray(turned(raster.values, orientation))
    alpha = raster.alpha
    if alpha is not None:
        alpha = np.ascontiguousarray(turned(alpha, orientation))
    raster = replace(raster, values=values, alpha=alpha)
    about = [form, words((int(values.shape[0]), int(values.shape[1]))), raster.kind]
    about += ["turned upright"] * (orientation != 1) + said
    return Picture(raster, metadata, ", ".join([*about, *raster.notes]))


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Whatever Pillow's plug-ins raise, as one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvdiffError:
        raise
    except Image.DecompressionBombError:
        raise too_large(str(path)) from None
    except UnidentifiedImageError:
        raise InvdiffError(
            f"{path} is not an image that can be read; {how_to_convert(path)}."
        ) from None
    except Exception as error:  # plug-ins raise whatever a broken file makes them meet
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = how_to_convert(path)
        kind = kind_of(path)
        foreign = kind in ("eps", "svg", "pdf", "psd", "avif", "jxl", "hdr", "mp4", "heic")
        raise InvdiffError(
            f"{path} is a broken image ({reason}); {advice if foreign else 'save it once more'}."
        ) from error


def _open_heic(path: Path) -> None:
    """Let Pillow read HEIC. Raises InvdiffError where pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise InvdiffError(
            f"{path} is a HEIC picture; pip install 'invdiff[photo]' reads it, or save it as PNG."
        ) from None
    pillow_heif.register_heif_opener()


def _chosen(image: Image.Image, path: Path) -> tuple[int, list[str]]:
    """The picture of a file to read, -1 for one within others, and what is passed over."""
    frames = min(int(getattr(image, "n_frames", 1)), MOST_FRAMES)
    if image.format == "TIFF":
        return _tiff_frame(image, path, frames)
    if image.format == "ICO":
        sizes = sorted(getattr(image, "ico").sizes())  # noqa: B009
        others = [f"{w} x {h}" for w, h in sizes if (w, h) != image.size]
        return 0, [f"largest of {len(sizes)} pictures"] * bool(others)
    if frames == 1:
        return 0, []
    kinds = _mpo_kinds(image)
    chosen = next((i for i, k in enumerate(kinds) if not k.startswith("Large Thumbnail")), 0)
    if chosen:
        image.seek(chosen)
        return chosen, [f"picture {chosen + 1} of {frames}: those before it are marked as reduced"]
    return 0, [f"first of {frames} pictures"]


def _mpo_kinds(image: Image.Image) -> list[str]:
    """What a multi-picture JPEG says of its pictures (CIPA DC-007, section 5.2.3.3.1)."""
    try:
        entries: Any = getattr(image, "mpinfo", {})[0xB002]
        return [str(e["Attribute"]["MPType"]) for e in entries]
    except (KeyError, TypeError):
        return []


def _tiff_frame(image: Image.Image, path: Path, frames: int) -> tuple[int, list[str]]:
    tags: Any = image
    reduced = []
    for i in range(frames):
        image.seek(i)
        reduced.append(bool(int(tags.tag_v2.get(SUBFILE, 0)) & 5))
    inner = sub_pages(path) if 330 in tags.tag_v2 or frames > 1 or reduced[0] else 0
    if all(reduced) and inner:
        image.seek(0)
        return -1, ["the full picture lies within a reduced one"]
    chosen = reduced.index(False) if False in reduced else 0
    image.seek(chosen)
    before = f"picture {chosen + 1} of {frames}: those before it are marked as reduced"
    said = [before] if chosen else [f"first of {frames} pictures"] * (frames > 1)
    return chosen, said + [f"{inner} smaller ones within it passed over"] * bool(inner)


def _plain(image: Image.Image, name: str, icc: bytes | None, told: Told) -> Raster:
    """A picture that Pillow reads without loss, or converts."""
    shown, notes = image.mode, list[str]()
    image.load()
    if image.mode == "CMYK":
        image, note = from_cmyk(image, icc)
        notes.append(note)
    elif image.mode not in MODES:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    raster = raster_of(image, name, told)
    return replace(raster, kind=MODES.get(shown, shown), notes=tuple(n for n in notes if n))


def raster_of(image: Image.Image, name: str, told: Told = NOTHING) -> Raster:
    """The raster of a picture of Pillow, of any of MODES. Raises InvdiffError for other numbers."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InvdiffError(f"{name} has 32-bit integer pixels; save it with 8 or 16 bits.")
        black, white = told.span or (0.0, 65535.0)
        return Raster(values.astype(np.uint16)[..., None], black, white, None, 16)
    if image.mode == "F":
        values = np.asarray(image)[..., None]
        return Raster(values, *span_of(values, name, told), None, 32)
    black, white = told.span or (0.0, 255.0)
    grey = image.mode in ("1", "L", "LA")
    if not image.has_transparency_data:
        array = np.asarray(image.convert("L" if grey else "RGB"))
        return Raster(array.reshape(*array.shape[:2], -1), black, white)
    array = np.asarray(image.convert("RGBA"))
    colours = array[..., :1] if grey else array[..., :3]
    return Raster(colours, black, white, array[..., 3].copy())


def from_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """Inks as sRGB, by the profile of the file, and what is to be said; by the formula
    255 - min(255, C + K), and so on, where there is no profile that works."""
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            srgb = ImageCms.createProfile("sRGB")
            found = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
            if found is not None:
                return found, "inks by the profile of the file"
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image.convert("RGB"), "the profile of its inks cannot be used"
    return image.convert("RGB"), ""
