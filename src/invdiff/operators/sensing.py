"""Compressed sensing: few random coefficients of an orthonormal transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Spectral
from invdiff.operators.sizes import check_image, checked_size, whole


def hadamard(x: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform of the last axis, whose length is a power of two.

    In natural order, by n log2(n) additions; its own inverse.
    """
    n = x.shape[-1]
    y, half = x, 1
    while half < n:
        a, b = y.reshape(*x.shape[:-1], n // (2 * half), 2, half).unbind(-2)
        y = torch.stack([a + b, a - b], dim=-2)
        half *= 2
    return y.reshape(x.shape) / math.sqrt(n)


def sign_changes(n: int) -> Tensor:
    """How often each row of Sylvester's n x n matrix changes sign: a permutation of 0 ... n - 1."""
    index, count = torch.arange(n), torch.zeros(n, dtype=torch.long)
    bit = torch.zeros_like(index)
    for k in range(
        n.bit_length() - 1
    ):  # the lowest bit of the row decides the highest of the count
        bit = bit ^ (index >> k & 1)
        count = 2 * count + bit
    return count


def check_keep(keep: int, n: int, what: str) -> None:
    """Raise InvdiffError unless keep is a whole number from 1 to n."""
    if not whole(keep) or keep > n:
        raise InvdiffError(f"{what} keeps a whole number from 1 to {n}, found {keep}.")


def draw(n: int, seed: int, role: str) -> Tensor:
    """A random order of 0 ... n - 1, the same on every machine."""
    return Rng.of(seed).uniform(torch.empty(1, n), role)[0].argsort(stable=True)


@dataclass(frozen=True, eq=False)
class WalshHadamard(Spectral):
    """`keep` Walsh-Hadamard coefficients of each channel: (B, C, H, W) to (B, C, keep).

    keep: from 1 to H W. size: (H, W), powers of two. Of the coefficients in the given order the
    first `keep` are measured, the same in all channels. order: "random", by the seed: the mean
    brightness is one coefficient among the others and measured where the seed draws it; "natural",
    Sylvester's; "sequency", those whose pattern changes sign less often first, along rows and
    columns together, which begins with the mean.
    Decomposition: V is the orthonormal transform over all pixels of a channel, s is 1 or 0.
    Raises InvdiffError for other sizes and for more coefficients than there are pixels.
    """

    keep: int
    size: tuple[int, int]
    seed: int = 0
    order: Literal["random", "natural", "sequency"] = "random"

    def __post_init__(self) -> None:
        size = checked_size(self.size)
        if self.order not in ("random", "natural", "sequency"):
            raise InvdiffError(f"Orders are random, natural and sequency, found {self.order!r}.")
        if any(n & (n - 1) for n in size):
            raise InvdiffError(
                "A Walsh-Hadamard transform needs a height and width that are powers of two, found "
                f"{size[0]} x {size[1]}; crop or pad the image."
            )
        check_keep(self.keep, size[0] * size[1], "Walsh-Hadamard sensing")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "keep", int(self.keep))

    @cached_property
    def index(self) -> Tensor:
        """Flat indices of the measured coefficients, in the order of y: (keep,)."""
        n = self.size[0] * self.size[1]
        if self.order == "random":
            return draw(n, self.seed, "walsh-hadamard")[: self.keep]
        if self.order == "natural":
            return torch.arange(self.keep)
        rows, columns = (sign_changes(side) for side in self.size)
        total = (rows[:, None] + columns[None, :]).flatten()
        return total.argsort(stable=True)[: self.keep]

    @cached_property
    def s(self) -> Tensor:
        """1 where a coefficient is measured, else 0; (H, W), float64."""
        s = torch.zeros(self.size[0] * self.size[1], dtype=torch.float64)
        s[self.index] = 1.0
        return s.reshape(self.size)

    def V(self, c: Tensor) -> Tensor:
        return hadamard(c.flatten(-2)).reshape(c.shape)

    def Vt(self, x: Tensor) -> Tensor:
        return self.V(x)

    def U(self, c: Tensor) -> Tensor:
        return c.flatten(-2)[..., self.index.to(c.device)]

    def Ut(self, y: Tensor) -> Tensor:
        n = self.size[0] * self.size[1]
        c = y.new_zeros(*y.shape[:-1], n).index_copy(-1, self.index.to(y.device), y)
        return c.reshape(*y.shape[:-1], *self.size)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image("WalshHadamard", self.size, x_shape)
        return (*x_shape[:-2], self.keep)


@dataclass(frozen=True, eq=False)
class BlockSensing(Spectral):
    """`keep` random projections of every block of pixels: (B, C, H, W) to (B, C, keep, H/b, W/b).

    keep: from 1 to b^2. size: (H, W), multiples of block. block: b, 32 in Wang et al. 2023
    (arXiv 2212.00490). seed: of the orthonormal matrix, the same for all blocks and channels.
    Decomposition: V applies that matrix to every block, s is 1 for the first `keep` coefficients.
    Raises InvdiffError where the blocks do not fit the image.
    """

    keep: int
    size: tuple[int, int]
    block: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        size = checked_size(self.size)
        if not whole(self.block) or any(n % self.block for n in size):
            raise InvdiffError(
                f"Blocks of {self.block} pixels do not tile an image of {size[0]} x {size[1]}; "
                "crop it to a multiple, or choose another block."
            )
        check_keep(self.keep, self.block**2, f"A block of {self.block} x {self.block}")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "keep", int(self.keep))

    @cached_property
    def basis(self) -> Tensor:
        """A random orthonormal matrix, uniformly distributed: (b^2, b^2), float64."""
        n = self.block**2
        like = torch.empty(1, n, n, dtype=torch.float64)
        q, r = torch.linalg.qr(Rng.of(self.seed).normal(like, "block-sensing")[0])
        return q * torch.where(r.diagonal() < 0, -1.0, 1.0)

    @cached_property
    def s(self) -> Tensor:
        """1 for the first `keep` coefficients of a block, else 0; (H, W), float64."""
        s = (torch.arange(self.block**2) < self.keep).double()
        rows, columns = (n // self.block for n in self.size)
        return self._image(s.reshape(1, -1, 1, 1).expand(1, -1, rows, columns))[0]

    def _blocks(self, x: Tensor) -> Tensor:
        """(..., H, W) to (..., b^2, H/b, W/b)."""
        return torch.nn.functional.pixel_unshuffle(x[..., None, :, :], self.block)

    def _image(self, blocks: Tensor) -> Tensor:
        """The inverse of _blocks."""
        return torch.nn.functional.pixel_shuffle(blocks, self.block)[..., 0, :, :]

    def V(self, c: Tensor) -> Tensor:
        c = self._blocks(c)
        return self._image((self._as("basis", c) @ c.flatten(-2)).reshape(c.shape))

    def Vt(self, x: Tensor) -> Tensor:
        x = self._blocks(x)
        return self._image((self._as("basis", x).mT @ x.flatten(-2)).reshape(x.shape))

    def U(self, c: Tensor) -> Tensor:
        return self._blocks(c)[..., : self.keep, :, :]

    def Ut(self, y: Tensor) -> Tensor:
        rest = y.new_zeros(*y.shape[:-3], self.block**2 - self.keep, *y.shape[-2:])
        return self._image(torch.cat([y, rest], dim=-3))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image("BlockSensing", self.size, x_shape)
        rows, columns = (n // self.block for n in self.size)
        return (*x_shape[:-2], self.keep, rows, columns)
