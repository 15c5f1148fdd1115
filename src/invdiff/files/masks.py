"""Masks as people give them: what is to be restored, and how much of it was painted softly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.files.instruments import Instrument, read_instrument
from invdiff.files.raster import words

White = Literal["restore", "keep"]


@dataclass(frozen=True, eq=False)
class Marked:
    """What a mask says of a picture. known: the pixels that are kept, (1, 1, H, W) bool. soft: how
    many of the others are neither black nor white. inverted: whether it looks drawn dark on white.
    """

    known: Tensor
    soft: int = 0
    inverted: bool = False

    def words(self, grow: int) -> str:
        """How much is restored."""
        count, total = int((~self.known).sum()), self.known.numel()
        said = f"{count} of {total} pixels are restored ({100 * count / total:.1f} %)"
        if self.soft:
            said += f", {self.soft} of them for intermediate values of the mask"
        return said + (f"; the mask was grown by {grow} pixels" if grow else "")


def read_mask(path: str | Path, size: tuple[int, int], white: White | None = None) -> Tensor:
    """Which pixels are known, (1, 1, H, W) bool; see `read_marked`."""
    return read_marked(path, size, white).known


def read_marked(path: str | Path, size: tuple[int, int], white: White | None = None) -> Marked:
    """What a mask's file says: a picture that is WHITE where to restore, or an array that is not 0
    there.

    All that is not black is restored: what a soft brush covers in part holds the object's colour.
    white="keep" turns the picture's meaning round. Of a picture with transparency what is painted
    counts (`painted`).
    Raises InvdiffError when the size differs, or nothing is to restore, or nothing is known.
    """
    found = read_instrument(Path(path), "mask")
    return marked(found, size, f"The mask {path}", white)


def marked(
    found: Instrument, size: tuple[int, int], name: str, white: White | None = None
) -> Marked:
    """What an instrument says as the mask of a picture of size."""
    s = found.strength
    if s.ndim != 2:
        raise InvdiffError(f"{name} has shape {tuple(s.shape)}; a mask is (height, width).")
    have = (int(s.shape[0]), int(s.shape[1]))
    if have != size:
        raise InvdiffError(
            f"{name} has {words(have)} pixels, but the photo has {words(size)}; "
            "make them the same size."
        )
    if not bool(torch.isfinite(s).all()) or bool((s < 0).any()):
        raise InvdiffError(f"{name} holds negative numbers or NaN; give 0 to keep, 1 to restore.")
    most = float(s.max())
    top = 1.0 if found.drawn or most <= 1 else max(most, 255.0)
    s = 1 - s / top if white == "keep" else s
    top = 1.0 if white == "keep" else top
    restore = s > 0
    if not bool(restore.any()):
        what = "white" if white != "keep" else "black"
        raise InvdiffError(f"{name} is empty: paint {what} what is to be restored.")
    if bool(restore.all()):
        kept, other = ("black", "white") if white != "keep" else ("white", "black")
        raise InvdiffError(
            f"{name} is {other} everywhere, or nowhere quite {kept}, so nothing is known; paint "
            f"{kept} what to keep."
        )
    soft = int((restore & (s < top)).sum())
    return Marked(~restore[None, None], soft, found.inverted)


def grown(known: Tensor, grow: int) -> Tensor:
    """Known pixels (1, 1, H, W) less those within `grow` rows and columns of one to be restored.

    Raises InvdiffError where none is left.
    """
    if not grow:
        return known
    missing = (known == 0).float()
    down, across = min(grow, missing.shape[2]), min(grow, missing.shape[3])
    missing = F.max_pool2d(missing, (2 * down + 1, 1), 1, (down, 0))
    missing = F.max_pool2d(missing, (1, 2 * across + 1), 1, (0, across))
    if bool(missing.all()):
        raise InvdiffError(
            f"The mask, grown by {grow} pixels, covers the whole picture, so that nothing is "
            "known; give a smaller --grow."
        )
    return missing == 0
