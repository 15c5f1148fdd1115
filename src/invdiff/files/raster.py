"""A decoded picture: its stored numbers, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.color import REC601

MAX_PIXELS = 100_000_000
"""Larger pictures are refused: a small file can hold a picture that fills the memory."""


@dataclass(frozen=True, eq=False)
class Raster:
    """The pixels of a file as they are stored, not turned.

    values: (H, W, 1 or 3). black, white: the numbers that stand for them. alpha: (H, W), uint8 or
    uint16, None where all is opaque. depth: bits of a number that is written without loss: 8, 16,
    or 32 for floating point. kind: the pixels in words. notes: what was decided on the way. loaded:
    whether Pillow decoded it, which turns some files upright by itself.
    """

    values: np.ndarray
    black: float
    white: float
    alpha: np.ndarray | None = None
    depth: int = 8
    kind: str = ""
    notes: tuple[str, ...] = field(default=())
    loaded: bool = True

    def pixels(self) -> np.ndarray:
        """(H, W, C) float32, black at 0 and white at 1."""
        if self.black == 0 and (self.values.dtype == np.uint8 or self.values.dtype.kind == "f"):
            values = np.asarray(self.values, np.float32)
            return values if self.white == 1 else values / np.float32(self.white)
        found = (self.values.astype(np.float64) - self.black) / (self.white - self.black)
        return found.astype(np.float32)


def words(size: tuple[int, int]) -> str:
    """(height, width) as people write it: width x height."""
    return f"{size[1]} x {size[0]}"


def check_pixels(size: tuple[int, int], what: str) -> None:
    """Raise InvdiffError when a picture of size (height, width) is too large."""
    if size[0] * size[1] > MAX_PIXELS:
        raise too_large(f"{what} ({words(size)})")


def too_large(what: str) -> InvdiffError:
    """The error for a picture of too many pixels."""
    return InvdiffError(
        f"{what} has more than {MAX_PIXELS // 10**6} megapixels, which is more than invdiff takes; "
        "crop it or make it smaller."
    )


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as it is seen, from pixels stored with an EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    across, down = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return array[:: -1 if down else 1, :: -1 if across else 1]


def luma(pixels: Tensor) -> Tensor:
    """Rec. 601 luma, (1, H, W), of (3, H, W); a grey picture is returned as it is."""
    if pixels.shape[0] == 1:
        return pixels
    return (torch.tensor(REC601)[:, None, None] * pixels).sum(0, keepdim=True)
