"""Camera raw through LibRaw (rawpy): the mosaic of the sensor, or the developed picture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from invdiff.core import InvdiffError
from invdiff.files.arrays import check_file
from invdiff.files.metadata import Metadata
from invdiff.files.raster import Raster, check_pixels, words

ENDINGS = frozenset(
    ".3fr .ari .arw .bay .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw "
    ".nef .nrw .orf .pef .ptx .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f".split()
)
DNG_VERSION = 50706
TURNS = {0: 1, 3: 3, 5: 8, 6: 6}
"""EXIF orientation by LibRaw's `flip`."""
PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


@dataclass(frozen=True, eq=False)
class Mosaic:
    """What a sensor behind a colour filter array measured.

    values: (H, W) float32, not turned; black is 0 and white is 1 by the camera's own levels, with
    its white balance and the curve of sRGB (IEC 61966-2-1), both of which act on each number alone.
    pattern: colours of the upper left 2 x 2 pixels. orientation: of EXIF. clipped: how many numbers
    are at white. about: the file in words.
    """

    values: np.ndarray
    pattern: str
    orientation: int
    clipped: int
    about: str


def is_raw(path: Path) -> bool:
    """Whether a file is camera raw, by its name, or by its tag where it is a DNG of another."""
    if path.suffix.lower() in ENDINGS:
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            if head[:4] not in (b"II*\0", b"MM\0*"):
                return False
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tags.load(file)
            return DNG_VERSION in tags
    except Exception:  # whatever it is, it is read as an image, and told there
        return False


def developed(path: Path) -> tuple[Raster, Metadata, str]:
    """A raw file as LibRaw develops it: in sRGB, by the camera's white balance, upright."""
    with _opened(path) as raw:
        values = raw.postprocess(
            use_camera_wb=True, no_auto_bright=True, output_bps=16, gamma=(2.4, 12.92)
        )
    about = f"camera raw, {words((values.shape[0], values.shape[1]))}, 16-bit colour"
    about += ", developed by LibRaw with the camera's white balance"
    return Raster(values, 0.0, 65535.0, None, 16, "16-bit colour"), Metadata(), about


def read_mosaic(path: Path) -> Mosaic:
    """The mosaic of a raw file. Raises InvdiffError where its sensor is not of Bayer's pattern."""
    with _opened(path) as raw:
        colours = _colours(raw, path)
        values = raw.raw_image_visible.astype(np.float64)
        index = np.asarray(raw.raw_colors_visible)
        black = np.asarray(raw.black_level_per_channel, np.float64)[index]
        white = float(raw.white_level)
        gains = _gains(list(raw.camera_whitebalance))[index]
        orientation = TURNS.get(int(raw.sizes.flip), 1)
    if not bool((white > black).all()):
        raise InvdiffError(f"{path} says that its white, {white:g}, is not above its black.")
    linear = gains * (values - black) / (white - black)
    clipped = int((values >= white).sum())
    about = (
        f"camera raw, {words((values.shape[0], values.shape[1]))}, {colours}, black "
        f"{_levels(black)}, white {white:g}, {clipped} numbers at white"
    )
    return Mosaic(srgb(linear).astype(np.float32), colours, orientation, clipped, about)


def srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light as sRGB has it (IEC 61966-2-1, section 5.2), clipped at white; below black the
    linear part goes on, so that noise has no bias."""
    light = np.minimum(linear, 1.0)
    curve = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(light > 0.0031308, curve, 12.92 * light))


def _levels(black: np.ndarray) -> str:
    return " and ".join(f"{v:g}" for v in np.unique(black)[:4])


def _gains(balance: list[float]) -> np.ndarray:
    """White balance for LibRaw's four colours; the least gain is 1, so that white stays white."""
    if not all(np.isfinite(v) and v >= 0 for v in balance) or balance[0] <= 0:
        return np.ones(4)
    red, green, blue, second = (balance + [0.0] * 4)[:4]
    gains = np.array([red, green or 1.0, blue or 1.0, second or green or 1.0])
    return np.asarray(gains / gains.min())


def _colours(raw: Any, path: Path) -> str:
    """The colours of the upper left 2 x 2 pixels."""
    pattern = getattr(raw, "raw_pattern", None)
    names = raw.color_desc.decode("ascii", "replace")
    found = ""
    if pattern is not None and np.shape(pattern) == (2, 2):
        visible = np.asarray(raw.raw_colors_visible)[:2, :2].flatten()
        found = "".join(names[i] for i in visible if i < len(names))
    if found not in PATTERNS:
        raise InvdiffError(
            f"{path} has no sensor of Bayer's pattern (RGGB or its turns), which is all that "
            "demosaic knows; give it to another task, which takes the developed picture."
        )
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """LibRaw's view of a file. Raises InvdiffError where it has none, or rawpy is missing."""
    check_file(path)
    try:
        import rawpy
    except ImportError:
        raise InvdiffError(
            f"{path} is a camera raw file; pip install 'invdiff[photo]' reads it, or develop it "
            "and save it as 16-bit TIFF or PNG."
        ) from None
    try:
        with rawpy.imread(str(path)) as raw:
            check_pixels((int(raw.sizes.height), int(raw.sizes.width)), str(path))
            yield raw
    except InvdiffError:
        raise
    except Exception as error:  # LibRaw's, and those of numbers that a broken file holds
        text = error.args[0] if error.args else type(error).__name__
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise InvdiffError(
            f"{path} is no camera raw file that LibRaw reads ({text}); develop it with the "
            "camera's own program and save it as 16-bit TIFF."
        ) from error
