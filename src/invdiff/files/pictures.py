"""Pictures as files. The ranges [0, 255] and [0, 1] exist only here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.arrays import (
    NOTHING,
    Told,
    check_file,
    check_real,
    read_array,
    read_only_array,
    span_of,
)
from invdiff.files.decode import decode_file, raster_of
from invdiff.files.masks import read_mask
from invdiff.files.metadata import Metadata
from invdiff.files.raster import Raster, check_pixels, luma, words
from invdiff.files.raw import developed, is_raw
from invdiff.files.write import save_picture

__all__ = [
    "Photo", "Range", "check_file", "check_pixels", "check_real", "filled", "from_range", "luma",
    "picture_pixels", "read_array", "read_mask", "read_photo", "save_picture", "to_range", "words",
]  # fmt: skip

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as it is seen: upright, with its transparency set aside.

    pixels: (C, H, W) float32 on [0, 1]; C is 1 for a grey picture, 3 for one in colour. Where the
    file declares pixels invalid they are filled from those around them.
    alpha: (H, W) uint8 or uint16, the largest number is opaque; None without transparency.
    valid: (1 or C, H, W) bool, what the file measured: not of alpha 0, nor NaN or infinite; None
    where all is. icc: the colour profile of the file, to be written again. about: format and size
    in words. path: the file, where it is a picture. depth: bits of its numbers, 8 or 16, or 32 for
    floating point. span: its numbers for black and white. metadata: what else is written again.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    icc: bytes | None = None
    about: str = ""
    path: Path | None = None
    valid: Tensor | None = None
    depth: int = 8
    span: Range = (0.0, 255.0)
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def grey(self) -> bool:
        """Whether there is one channel."""
        return self.pixels.shape[0] == 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])

    @property
    def opacity(self) -> Tensor | None:
        """How much of each pixel is seen, (H, W), of the most opaque one; None where all are alike,
        or none is seen at all."""
        if self.alpha is None:
            return None
        share = torch.from_numpy(self.alpha.numpy().astype(np.float32))
        top = float(share.max())
        return None if top == 0 or bool((share == top).all()) else share / top


def to_range(pixels: Tensor, value_range: Range) -> Tensor:
    """Values on [0, 1] to a prior's range."""
    low, high = value_range
    return low + (high - low) * pixels


def from_range(x: Tensor, value_range: Range) -> Tensor:
    """Values of a prior's range to [0, 1]."""
    low, high = value_range
    return (x - low) / (high - low)


def read_photo(path: str | Path, told: Told = NOTHING) -> Photo:
    """The picture in a file that Pillow reads, or in an array in .npy or .npz.

    Turned upright by its EXIF tag. Grey, palette, CMYK (by its profile) and 1-bit pictures are
    understood, PNG and TIFF of 16 bits, TIFF of floating-point numbers; HEIC and camera raw, which
    is developed, with the extra `photo`. A colour file whose channels are all equal counts as grey.
    Pixels of alpha 0, NaN and infinities are no measurement (`Photo.valid`).
    Raises InvdiffError when there is no such file, it is no image, or one of over 100 megapixels,
    or when nothing tells which numbers are black and white.
    """
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz"):
        raster = array_raster(read_only_array(path), str(path), told)
        metadata, form = Metadata(), "numpy array"
        size = words((raster.values.shape[0], raster.values.shape[1]))
        about = f"{form}, {size}, {raster.kind}"
        return _photo(raster, metadata, about, None)
    if is_raw(path):
        raster, metadata, about = developed(path)
        return _photo(raster, metadata, about, None)
    found = decode_file(path, told)
    return _photo(found.raster, found.metadata, found.about, path)


def _photo(raster: Raster, metadata: Metadata, about: str, path: Path | None) -> Photo:
    """The photo of a raster."""
    pixels = torch.from_numpy(raster.pixels().transpose(2, 0, 1).copy())
    alpha = None if raster.alpha is None else torch.from_numpy(raster.alpha)
    valid = torch.isfinite(pixels)
    if alpha is not None:
        valid = valid & torch.from_numpy(raster.alpha != 0)
        if not bool(valid.any()):
            raise InvdiffError(
                "Every pixel of the picture is transparent, so that nothing is measured; save it "
                "without transparency."
            )
    whole = bool(valid.all())
    if not whole:
        pixels = filled(pixels, valid)
    if pixels.shape[0] == 3 and _grey(pixels, valid):
        pixels, valid, about = pixels[:1].clone(), valid.all(0, keepdim=True), f"{about} (grey)"
    seen = None if whole or not bool(valid.any()) else valid
    icc = metadata.profile(pixels.shape[0])
    span = (float(raster.black), float(raster.white))
    return Photo(pixels, alpha, icc, about, path, seen, raster.depth, span, metadata)


def _grey(pixels: Tensor, valid: Tensor) -> bool:
    """Whether all channels are equal where they are valid, and as valid."""
    same = (pixels == pixels[:1]) | ~valid
    return bool(same.all()) and bool((valid == valid[:1]).all())


def filled(pixels: Tensor, valid: Tensor) -> Tensor:
    """Pixels (C, H, W) whose invalid ones are taken from those around them.

    Means of the valid pixels among 2 x 2, of these means again where there are none, and so on
    (Gortler et al. 1996, The lumigraph, section 3.4, pull and push). NaN where none is valid.
    """
    values, weight = torch.where(valid, pixels, 0.0), valid.to(pixels.dtype).expand_as(pixels)
    if bool((weight > 0).all()) or max(pixels.shape[1:]) == 1:
        return torch.where(valid, pixels, torch.nan)
    share = F.avg_pool2d(weight[None], 2, ceil_mode=True)[0]
    mean = F.avg_pool2d((values * weight)[None], 2, ceil_mode=True)[0] / share.clamp_min(1e-12)
    coarse = filled(mean, share > 0)
    fine = F.interpolate(coarse[None], size=pixels.shape[1:], mode="nearest")[0]
    return torch.where(valid, pixels, fine)


def array_raster(array: np.ndarray, name: str, told: Told = NOTHING) -> Raster:
    """The raster of an array (H, W) or (H, W, 1 or 3)."""
    check_real(array, name)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        more = ""
        if array.ndim == 3 and array.shape[0] in (1, 3):
            more = "; this one seems to be (colours, height, width): give array.transpose(1, 2, 0)"
        elif array.ndim == 3 and array.shape[2] in (2, 4):
            more = "; leave the channel of transparency out"
        raise InvdiffError(
            f"{name} has shape {array.shape}; a picture is an array (height, width) or "
            f"(height, width, 3){more}."
        )
    check_pixels((array.shape[0], array.shape[1]), name)
    if array.size == 0:
        raise InvdiffError(f"{name} is an empty picture.")
    values = np.asarray(array).reshape(array.shape[0], array.shape[1], -1)
    black, white = span_of(values, name, told)
    depth = {"uint8": 8, "bool": 8, "uint16": 16}.get(array.dtype.name, 32)
    if values.dtype.kind != "f" and values.dtype != np.uint8 and depth != 16:
        values = values.astype(np.float32) if values.dtype.itemsize < 4 else values.astype(float)
    kind = "grey" if values.shape[2] == 1 else "colour"
    return Raster(values, black, white, None, depth, f"{kind}, float")


def picture_pixels(image: Image.Image, name: str) -> tuple[Tensor, Tensor | None]:
    """Pixels (C, H, W) on [0, 1], and alpha (H, W) where there is transparency."""
    raster = raster_of(image, name)
    alpha = None if raster.alpha is None else torch.from_numpy(raster.alpha)
    return torch.from_numpy(raster.pixels().transpose(2, 0, 1).copy()), alpha
