"""Compressed sensing in the cosine basis: some coefficients of the orthonormal 2-D DCT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.admit import checked
from invdiff.operators.base import Spectral
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.separable import checked_size, whole


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of n samples, (n, n), float64: row k is the k-th cosine."""
    k, i = torch.arange(n).double()[:, None], torch.arange(n).double()[None, :]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * k * (i + 0.5))
    matrix[0] = math.sqrt(1 / n)
    return matrix


@dataclass(frozen=True, eq=False)
class DCTSubsampling(Spectral):
    """y = mask * (C_H x C_W^T): some cosine coefficients of every channel, 0 where not measured.

    mask: 1 = measured, 0 = not, as for `Inpaint`: shape (M or 1, 1 or C, H, W), the mean brightness
    at (0, 0) and frequencies growing to the right and downwards; videos (M or 1, 1 or C, 1 or T, H,
    W) frame by frame. Images (B, C, H, W) to y of the same shape.
    Decomposition: V is the inverse transform, s = mask, and U keeps what was measured.
    Entries of y where mask = 0 are never read. Raises InvdiffError as `Inpaint` does for its mask.
    """

    mask: Tensor

    batched: ClassVar[tuple[str, ...]] = ("mask",)

    def __post_init__(self) -> None:
        _ = self.known  # names what is wrong with a mask

    @cached_property
    def known(self) -> Inpaint:
        """The mask as an operator on coefficients."""
        return Inpaint(self.mask)

    @classmethod
    @checked
    def random(
        cls, size: tuple[int, int], keep: float, seed: int, low: int = 0, batch: int = 1
    ) -> DCTSubsampling:
        """round(keep H W) random coefficients, and all of the low x low lowest besides.

        size: (H, W). keep, seed and batch: as for `Inpaint.random`. low: 0 for none.
        """
        mask = Inpaint.random(size, keep, seed, batch).mask
        if low:
            mask = mask | cls.lowest(size, low).mask
        return cls(mask)

    @classmethod
    @checked
    def lowest(cls, size: tuple[int, int], count: int) -> DCTSubsampling:
        """The count x count lowest frequencies of images of size (H, W)."""
        size = checked_size(size)
        if not whole(count) or count > max(size):
            raise InvdiffError(f"An image of {size} has no {count} x {count} lowest frequencies.")
        mask = torch.zeros(1, 1, *size, dtype=torch.bool)
        mask[..., :count, :count] = True
        return cls(mask)

    @cached_property
    def left(self) -> Tensor:
        """C_H, (H, H), float64."""
        return dct_matrix(self.mask.shape[-2])

    @cached_property
    def right(self) -> Tensor:
        """C_W, (W, W), float64."""
        return dct_matrix(self.mask.shape[-1])

    def restrict(self, y: Tensor) -> Tensor:
        return self.known.restrict(y)

    @property
    def s(self) -> Tensor:
        """The mask itself, in float64."""
        return self.known.s

    def __call__(self, x: Tensor) -> Tensor:
        return self.restrict(self.Vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.V(self.restrict(y))

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def V(self, c: Tensor) -> Tensor:
        return self._as("left", c).mT @ c @ self._as("right", c)

    def Vt(self, x: Tensor) -> Tensor:
        return self._as("left", x) @ x @ self._as("right", x).mT

    def U(self, c: Tensor) -> Tensor:
        return self.restrict(c)

    def Ut(self, y: Tensor) -> Tensor:
        return self.restrict(y)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.known.y_shape(x_shape)
