"""Pictures and masks as files. The ranges [0, 255] and [0, 1] exist only here."""

from __future__ import annotations

import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.color import REC601

Range = tuple[float, float]

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

MAX_PIXELS = 100_000_000
"""Larger pictures are refused: a small file can hold a picture that fills the memory."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as it is seen: upright, with its transparency set aside.

    pixels: (C, H, W) float32 on [0, 1]; C is 1 for a grey picture, 3 for one in colour.
    alpha: (H, W) uint8, 255 is opaque; None where there is no transparency.
    icc: the colour profile of the file, to be written again. about: format and size in words.
    path: the file, where it is a picture.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    icc: bytes | None = None
    about: str = ""
    path: Path | None = None

    @property
    def grey(self) -> bool:
        """Whether there is one channel."""
        return self.pixels.shape[0] == 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])


def words(size: tuple[int, int]) -> str:
    """(height, width) as people write it: width x height."""
    return f"{size[1]} x {size[0]}"


def to_range(pixels: Tensor, value_range: Range) -> Tensor:
    """Values on [0, 1] to a prior's range."""
    low, high = value_range
    return low + (high - low) * pixels


def from_range(x: Tensor, value_range: Range) -> Tensor:
    """Values of a prior's range to [0, 1]."""
    low, high = value_range
    return (x - low) / (high - low)


def luma(pixels: Tensor) -> Tensor:
    """Rec. 601 luma, (1, H, W), of (3, H, W); a grey picture is returned as it is."""
    if pixels.shape[0] == 1:
        return pixels
    return (torch.tensor(REC601)[:, None, None] * pixels).sum(0, keepdim=True)


def read_photo(path: str | Path) -> Photo:
    """The picture in a file that Pillow reads, or in a .npy array on [0, 1].

    Turned upright by its EXIF tag. Grey, palette, CMYK, 1-bit and 16-bit grey pictures are
    understood; 16-bit colour arrives with 8 bits, for that is all that Pillow gives. A colour file
    whose channels are all equal counts as grey.
    Raises InvdiffError when there is no such file, it is no image, or one of over 100 megapixels.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        pixels = _array_pixels(read_array(path), str(path))
        size = words((pixels.shape[1], pixels.shape[2]))
        kind = "grey" if pixels.shape[0] == 1 else "colour"
        return Photo(pixels, about=f"numpy array, {size}, {kind}, float")
    image, about = open_image(path)
    pixels, alpha = picture_pixels(image, str(path))
    icc = image.info.get("icc_profile") if image.mode in ("L", "LA", "P", "RGB", "RGBA") else None
    if pixels.shape[0] == 3 and bool((pixels == pixels[:1]).all()):
        pixels, icc, about = pixels[:1].clone(), None, f"{about} (grey)"
    return Photo(pixels, alpha, icc if isinstance(icc, bytes) else None, about, path)


def open_image(path: Path) -> tuple[Image.Image, str]:
    """The first picture in a file, upright, and what it is in words."""
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                check_pixels((opened.height, opened.width), str(path))
                turned = opened.getexif().get(0x0112, 1) not in (0, 1)
                frames = getattr(opened, "n_frames", 1)
                opened.load()
                image = ImageOps.exif_transpose(opened)
                if image.mode not in MODES:
                    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except InvdiffError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(str(path)) from None
    except UnidentifiedImageError:
        if _is_dicom(path):
            raise InvdiffError(
                f"{path} is a DICOM file, whose Hounsfield units a picture would lose; to take the "
                f"noise of CT slices away, run invdiff restore low-dose-ct {path}."
            ) from None
        raise InvdiffError(
            f"{path} is not an image that can be read; save it as PNG or JPEG."
        ) from None
    except Exception as error:  # Pillow's plug-ins raise whatever a broken file makes them meet
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvdiffError(f"{path} is a broken image ({reason}); save it once more.") from error
    about = [opened.format or "image", words((image.height, image.width))]
    about.append(MODES.get(opened.mode, opened.mode))
    about += ["turned upright"] * turned + [f"first of {frames} pictures"] * (frames > 1)
    return image, ", ".join(about)


def _is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM after its preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def check_file(path: Path) -> None:
    """Raise InvdiffError unless path is a file that can be read: no folder, no pipe, no device."""
    shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}..."
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null byte is a ValueError
        raise InvdiffError(f"There is no file {shown}; give the path of one.") from None
    except OSError as error:
        raise InvdiffError(f"{shown} cannot be read ({error.strerror}).") from None
    if stat.S_ISDIR(mode):
        raise InvdiffError(f"{shown} is a folder; give a file.")
    if not stat.S_ISREG(mode):
        raise InvdiffError(f"{shown} is a pipe or a device and no file; save its content first.")
    if not os.access(path, os.R_OK):
        raise InvdiffError(f"{shown} cannot be read (Permission denied); change its permissions.")


def check_pixels(size: tuple[int, int], what: str) -> None:
    """Raise InvdiffError when a picture of size (height, width) is too large."""
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_large(f"{what} ({words(size)})")


def _too_large(what: str) -> InvdiffError:
    return InvdiffError(
        f"{what} has more than {MAX_PIXELS // 10**6} megapixels, which is more than invdiff takes; "
        "crop it or make it smaller."
    )


def read_array(path: Path) -> np.ndarray:
    """The numbers in a .npy file, real or complex, mapped from disk; never unpickled.

    Raises InvdiffError, one sentence with the name of the file, when it holds none.
    """
    check_file(path)
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise InvdiffError(
            f"{path} is not a numpy array that can be read; save it with numpy.save."
        ) from error
    if array.dtype.kind not in "buifc":
        raise InvdiffError(f"{path} holds {array.dtype} and not numbers; save it as a plain array.")
    return array


def check_real(array: np.ndarray, name: str) -> None:
    """Raise InvdiffError unless the array called name holds real numbers."""
    if array.dtype.kind not in "buif":
        raise InvdiffError(f"{name} holds {array.dtype}; real numbers are needed here.")


def _array_pixels(array: np.ndarray, name: str) -> Tensor:
    """(C, H, W) float32 of an array (H, W) or (H, W, 1 or 3); NaN is left for Problem to find."""
    check_real(array, name)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise InvdiffError(
            f"{name} has shape {array.shape}; a picture is an array (height, width) or "
            "(height, width, 3)."
        )
    check_pixels((array.shape[0], array.shape[1]), name)
    if array.size == 0:
        raise InvdiffError(f"{name} is an empty picture.")
    whole = {"uint8": 255.0, "uint16": 65535.0, "bool": 1.0}.get(array.dtype.name)
    values = np.asarray(array, np.float32) / (whole or 1.0)
    if whole is None and bool((np.abs(values[np.isfinite(values)]) > 10).any()):
        raise InvdiffError(
            f"{name} holds values far from [0, 1]; divide it so that black is 0 and white is 1."
        )
    return torch.from_numpy(np.atleast_3d(values).transpose(2, 0, 1).copy())


def picture_pixels(image: Image.Image, name: str) -> tuple[Tensor, Tensor | None]:
    """Pixels (C, H, W) on [0, 1], and alpha (H, W) where there is transparency."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise InvdiffError(f"{name} has 32-bit integer pixels; save it with 8 or 16 bits.")
        return _array_pixels(values / 65535, name), None
    if image.mode == "F":
        return _array_pixels(np.asarray(image), name), None
    grey = image.mode in ("1", "L", "LA")
    if not image.has_transparency_data:
        array = np.asarray(image.convert("L" if grey else "RGB"))
        return _array_pixels(array, name), None
    array = np.asarray(image.convert("RGBA"))
    colours = array[..., :1] if grey else array[..., :3]
    return _array_pixels(colours, name), torch.from_numpy(array[..., 3].copy())


def save_picture(
    path: Path, pixels: Tensor, alpha: Tensor | None = None, icc: bytes | None = None
) -> None:
    """Write (1 or 3, H, W) on [0, 1] as an 8-bit PNG; alpha is resized to fit."""
    levels = (pixels.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    array = levels[0] if len(levels) == 1 else levels.permute(1, 2, 0).contiguous()
    image = Image.fromarray(array.numpy())
    if alpha is not None:
        layer = Image.fromarray(alpha.numpy())
        if layer.size != image.size:
            layer = layer.resize(image.size, Image.Resampling.BICUBIC)
        image.putalpha(layer)
    image.save(path, icc_profile=icc)


def painted(pixels: Tensor, alpha: Tensor | None) -> Tensor:
    """Where a mask's picture is painted white, (H, W) bool; `read_mask` tells how it is read."""
    one_colour = bool((pixels == pixels[:, :1, :1]).all())
    if alpha is not None and one_colour and bool((alpha != alpha[0, 0]).any()):
        return alpha > 127
    return luma(pixels)[0] > 0.5


def read_mask(path: str | Path, size: tuple[int, int]) -> Tensor:
    """Which pixels are known: (1, 1, H, W) bool, from a picture that is WHITE where to restore.

    Lighter than middle grey means restore, darker means keep. Transparency is ignored, unless the
    picture has one colour only and was painted as a transparent layer: then opaque means restore.
    Raises InvdiffError when the size differs, or nothing is to restore, or nothing is known.
    """
    image, _ = open_image(Path(path))
    pixels, alpha = picture_pixels(image, str(path))
    have = (int(pixels.shape[1]), int(pixels.shape[2]))
    if have != size:
        raise InvdiffError(
            f"The mask {path} has {words(have)} pixels, but the photo has {words(size)}; "
            "make them the same size."
        )
    restore = painted(pixels, alpha)
    if not bool(restore.any()):
        raise InvdiffError(f"The mask {path} is empty: paint white what is to be restored.")
    if bool(restore.all()):
        raise InvdiffError(
            f"The mask {path} is white everywhere, so nothing is known; paint black what to keep."
        )
    return ~restore[None, None]
