"""Inpainting: some pixels were measured, the others are unknown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.rng import Rng
from invdiff.operators.algebra.spectral import Diagonal
from invdiff.operators.sizes import check_count, checked_size, whole

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""Integers of the same width."""


@dataclass(frozen=True, eq=False)
class Inpaint(Diagonal):
    """y = mask * x; y keeps the shape of the image and is 0 where nothing was measured.

    mask: 1 = known, 0 = missing; float or bool, shape (M or 1, 1 or C, H, W), with the same number
    of axes as a batch of images (M or 1, 1 or C, 1 or T, H, W for videos). One mask for each of M
    measurements, or one for all.
    Decomposition: V = identity, s = mask, and U keeps known pixels only.
    Entries of y where mask = 0 are never read, so NaN may stand there.
    Raises InvdiffError when a mask holds other values than 0 and 1, or knows no pixel at all.
    """

    mask: Tensor

    batched: ClassVar[tuple[str, ...]] = ("mask",)

    def __post_init__(self) -> None:
        if self.mask.ndim < 4:
            raise InvdiffError(
                "A mask has shape (batch or 1, channels or 1, height, width), found "
                f"{tuple(self.mask.shape)}; add the missing axes."
            )
        if self.mask.is_complex() or not bool(((self.mask == 0) | (self.mask == 1)).all()):
            raise InvdiffError("A mask holds only 1 (known) and 0 (missing); threshold it first.")
        empty = (~self.mask.bool().flatten(1).any(1)).nonzero().flatten().tolist()
        if empty or self.mask.shape[0] == 0:
            raise InvdiffError(
                f"The mask of image {empty[0] if empty else 0} knows no pixel, so there is "
                "nothing to start from; mark known pixels with 1."
            )

    @classmethod
    @checked
    def box(cls, size: tuple[int, int], top: int, left: int, height: int, width: int) -> Inpaint:
        """A box of pixels is MISSING, everything around it is known.

        size: (H, W) of the image. top, left: first missing row and column. height, width: of the
        missing box, in pixels. Raises InvdiffError when the box does not lie within the image, or
        covers all of it.
        """
        size = checked_size(size)
        numbers = all(whole(n + 1) for n in (top, left, height, width))
        inside = 0 <= top <= top + height <= size[0] and 0 <= left <= left + width <= size[1]
        if not numbers or not inside or min(height, width) < 1:
            raise InvdiffError(
                f"The missing box of {height} x {width} pixels at row {top} and column {left} does "
                f"not lie within the image of {size[0]} x {size[1]}; move or shrink it."
            )
        mask = torch.ones(1, 1, *size, dtype=torch.bool)
        mask[..., top : top + height, left : left + width] = False
        return cls(mask)

    @classmethod
    @checked
    def random(cls, size: tuple[int, int], keep: float, seed: int, batch: int = 1) -> Inpaint:
        """Exactly round(keep H W) randomly placed pixels are known, the same in all channels.

        size: (H, W) of the image. keep: fraction of known pixels, in (0, 1]. seed: row k of the
        batch has the mask of seed + k, whatever the batch. batch: number of masks.
        Raises InvdiffError when keep is out of range or leaves no pixel.
        """
        if not 0 < keep <= 1:
            raise InvdiffError(f"The fraction of known pixels lies in (0, 1], found {keep}.")
        check_count("masks", batch)
        size = checked_size(size)
        n = size[0] * size[1]
        draws = Rng.of(range(seed, seed + batch)).uniform(torch.empty(batch, n), "mask")
        known = draws.argsort(dim=1, stable=True)[:, : round(keep * n)]
        mask = torch.zeros(batch, n, dtype=torch.bool).scatter_(1, known, True)
        return cls(mask.reshape(batch, 1, *size))

    def restrict(self, y: Tensor) -> Tensor:
        if y.requires_grad or y.dtype not in BITS:
            return torch.where(self._as("mask", y) > 0, y, y.new_zeros(()))
        # the same on the bits, some 20 times as fast on a CPU; 0 * y would keep a NaN
        return (y.view(BITS[y.dtype]) & self._bits(y)).view(y.dtype)

    def _bits(self, like: Tensor) -> Tensor:
        """All ones where a value is known, else all zeros: integers as wide as like's, kept."""
        kept: dict[object, Tensor] = self.__dict__.setdefault("_ones", {})
        key = (like.dtype, like.device)
        if key not in kept:
            kept[key] = -self.mask.to(like.device, BITS[like.dtype])
        return kept[key]

    def __call__(self, x: Tensor) -> Tensor:
        return self._as("mask", x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.restrict(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self.restrict(y)

    def cosine_power(self, variance: Tensor) -> Tensor:
        """Of an image that is known everywhere: known pixels keep their values, and `restrict`
        leaves out the others."""
        return variance

    @cached_property
    def s(self) -> Tensor:
        """The mask itself, in float64."""
        return self.mask.double()

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        have = tuple(self.mask.shape[1:])
        fits = len(have) == len(x_shape) and have[-2:] == tuple(x_shape[-2:])
        if not fits or any(m not in (1, n) for m, n in zip(have, x_shape, strict=True)):
            raise InvdiffError(
                f"The mask has shape {have} per image and does not fit images of shape "
                f"{tuple(x_shape)}; give a mask of the same height and width, with as many axes."
            )
        return tuple(x_shape)
