"""Masks, kernels and whatever else is an instrument and no photograph: one reader for all.

A picture of an instrument is read with all that it says: upright, in all its bits, and where it was
painted on a transparent layer by the opacity of the paint. Arrays are taken as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.arrays import Told, check_file, check_real, read_only_array
from invdiff.files.decode import decode_file
from invdiff.files.raster import luma

FREE = Told(free=True)


@dataclass(frozen=True, eq=False)
class Instrument:
    """The strengths (H, W) of an instrument, float64; of a picture, 0 is black or nothing painted,
    and 1 is white or opaque paint. drawn: whether it is a picture."""

    strength: Tensor
    drawn: bool

    @property
    def inverted(self) -> bool:
        """Whether a picture looks drawn dark on white: white all along its edge, and dark in less
        than half of it."""
        s = self.strength
        if not self.drawn or min(s.shape) < 3:
            return False
        edge = torch.cat([s[0], s[-1], s[:, 0], s[:, -1]])
        dark = float((s < 0.5 * s.max()).double().mean())
        return bool((edge >= 0.9 * s.max()).all()) and 0 < dark < 0.5


def read_instrument(path: Path, what: str) -> Instrument:
    """The instrument in a file: .npy, .npz, rows of numbers (.txt, .csv), or a picture.

    what: its name in messages. Raises InvdiffError when it holds none.
    """
    check_file(path)
    ending = path.suffix.lower()
    if ending in (".npy", ".npz"):
        array = read_only_array(path)
        check_real(array, str(path))
        found = np.array(array, np.float64)
        if found.ndim == 3 and 1 in (found.shape[0], found.shape[2]):
            found = found.squeeze(2 if found.shape[2] == 1 else 0)
        return Instrument(torch.from_numpy(found), False)
    if ending in (".txt", ".csv"):
        return Instrument(torch.from_numpy(_rows(path, what)), False)
    raster = decode_file(path, FREE).raster
    pixels = torch.from_numpy(raster.pixels().transpose(2, 0, 1).copy())
    opacity = None
    if raster.alpha is not None:
        opacity = torch.from_numpy(raster.alpha / float(np.iinfo(raster.alpha.dtype).max))
    return Instrument(painted(pixels, opacity, str(path)), True)


def painted(pixels: Tensor, opacity: Tensor | None, name: str) -> Tensor:
    """How strongly each pixel of a picture (C, H, W) is painted, (H, W) float64, 0 to 1; opacity is
    (H, W), 0 to 1.

    Its brightness. With transparency that differs, what is transparent says nothing: of one colour
    the opacity of the paint counts, whatever the colour, and of several the brightness over black.
    Raises InvdiffError where black paint on a transparent layer and a white picture with a black
    layer before it are the same file.
    """
    brightness = luma(pixels)[0].double()
    if opacity is None or bool((opacity == opacity[0, 0]).all()):
        return brightness
    opacity = opacity.double()
    seen = pixels[:, opacity > 0]
    if bool((seen == seen[:, :1]).all()):
        hidden = brightness[opacity == 0]
        dark = float(seen[:, 0].max()) < 0.25
        if dark and hidden.numel() and bool((hidden > 0.5).all()):
            raise InvdiffError(
                f"{name} is dark where it is opaque and white where it is transparent, so that "
                "either may be meant; save it without transparency, white where it acts."
            )
        return opacity
    return brightness * opacity


def _rows(path: Path, what: str) -> np.ndarray:
    """Rows of numbers, separated by spaces, tabs, commas or semicolons."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [re.split(r"[,;\s]+", line.strip(" \t,;")) for line in lines if line.strip()]
        array = np.array([[float(v) for v in row] for row in rows])
    except ValueError:  # text, bytes that are no text, or rows of different lengths
        array = np.zeros(0)
    if array.ndim != 2:
        raise InvdiffError(f"{path} is not a {what}; it should hold rows of numbers, all as long.")
    return array
