"""Compressed sensing in the cosine basis: some coefficients of the orthonormal 2-D DCT."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.core.tensors import times
from invdiff.operators.algebra import Spectral
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.sizes import checked_size, whole


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of n samples, (n, n), float64: row k is the k-th cosine."""
    k, i = torch.arange(n).double()[:, None], torch.arange(n).double()[None, :]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * k * (i + 0.5))
    matrix[0] = math.sqrt(1 / n)
    return matrix


def mode_power(matrix: Tensor) -> Tensor:
    """How the power of cosine modes of n samples becomes that of m, (m, n), for M (m, n), float64:
    the squares of M in cosine modes."""
    m, n = matrix.shape
    return (dct_matrix(m) @ matrix.double() @ dct_matrix(n).mT).square()


LARGE = 768
"""Sides from which the fast transform beats the product of matrices."""


@lru_cache(maxsize=16)
def _matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return dct_matrix(n).to(device, dtype)


@lru_cache(maxsize=16)
def _twist(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(-i pi k / 2n) and the orthonormal scale: what makes a DCT-II of an FFT of n numbers."""
    k = torch.arange(n, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    return (scale * torch.exp(-0.5j * math.pi * k / n)).to(device, dtype.to_complex())


def dct2(x: Tensor) -> Tensor:
    """The orthonormal DCT-II over the last two axes of (..., H, W): real, shape of x.

    By matrices for short sides, by FFTs of the same length for long ones (Makhoul 1980, IEEE
    Transactions on Acoustics, Speech and Signal Processing 28): the two agree to round-off.
    """
    for axis in (-1, -2):
        n = x.shape[axis]
        if n < LARGE:
            C = _matrix(n, x.dtype, x.device)
            x = times(x, C.mT) if axis == -1 else times(C, x)
        else:
            x = _by_rows(_fast, x, axis)
    return x


def idct2(c: Tensor) -> Tensor:
    """The inverse of `dct2`, and its transpose."""
    for axis in (-1, -2):
        n = c.shape[axis]
        if n < LARGE:
            C = _matrix(n, c.dtype, c.device)
            c = times(c, C) if axis == -1 else times(C.mT, c)
        else:
            c = _by_rows(_fast_inverse, c, axis)
    return c


def _by_rows(transform: Callable[[Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    """A transform of the last axis along another one.

    Rows in memory are transformed alike however many they are; those with a stride are not.
    """
    return transform(x.contiguous()) if axis == -1 else transform(x.mT.contiguous()).mT


def _fast(x: Tensor) -> Tensor:
    """DCT-II of the last axis: of Z = V twist, V the FFT of the even and the mirrored odd entries,
    c[k] = Re Z[k] and c[n - k] = -Im Z[k]."""
    n = x.shape[-1]
    V = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1))
    Z = V * _twist(n, x.dtype, x.device)[: n // 2 + 1]
    return torch.cat([Z.real, -Z.imag[..., 1 : (n + 1) // 2].flip(-1)], -1)


def _fast_inverse(c: Tensor) -> Tensor:
    """The inverse of `_fast`: V[k] = (c[k] - i c[n - k]) / twist, c[n] being 0."""
    n = c.shape[-1]
    half = n // 2 + 1
    mirror = F.pad(c.flip(-1)[..., : half - 1], (1, 0))
    V = torch.complex(c[..., :half], -mirror) / _twist(n, c.dtype, c.device)[:half]
    order = torch.fft.irfft(V, n)
    out = torch.empty_like(c)
    out[..., ::2], out[..., 1::2] = order[..., : (n + 1) // 2], order[..., (n + 1) // 2 :].flip(-1)
    return out


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
