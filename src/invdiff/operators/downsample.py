"""Super-resolution measurements: block means, antialiased bicubic decimation; and enlargement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.boundaries import reflected
from invdiff.operators.separable import Separable
from invdiff.operators.sizes import checked_size, whole


def average_matrix(n: int, factor: int) -> Tensor:
    """Mean of blocks of `factor` samples, shape (ceil(n / factor), n), float64.

    Where factor does not divide n, the last block is the mean of the samples that are left.
    """
    block = torch.arange(n) // factor
    member = (block[None, :] == torch.arange(-(-n // factor))[:, None]).double()
    return member / member.sum(1, keepdim=True)


def keys_cubic(t: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -1/2 at distances t (samples); 0 from |t| = 2 on."""
    t = t.abs()
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))


def bicubic_matrix(n: int, factor: int) -> Tensor:
    """Antialiased cubic decimation, shape (ceil(n / factor), n), float64, rows summing to 1.

    Output p is centred at p factor + (factor - 1) / 2, with Keys' kernel stretched by factor
    (4 factor taps) and half-sample symmetric reflection at the ends.
    """
    outputs = torch.arange(-(-n // factor))
    centre = outputs.double() * factor + (factor - 1) / 2
    taps = centre.floor().long()[:, None] + torch.arange(1 - 2 * factor, 2 * factor + 1)
    weight = keys_cubic((taps - centre[:, None]) / factor)
    matrix = torch.zeros(len(outputs), n, dtype=torch.float64)
    matrix.scatter_add_(1, reflected(taps, n), weight)
    return matrix / matrix.sum(1, keepdim=True)


def nearest_up_matrix(n: int, factor: int) -> Tensor:
    """Enlargement to n samples by repetition, shape (n, ceil(n / factor)), float64.

    `average_matrix` takes it back exactly: average @ nearest_up = I.
    """
    return (average_matrix(n, factor) > 0).double().mT


def bicubic_up_matrix(n: int, factor: int) -> Tensor:
    """Keys' cubic interpolation to n samples, shape (n, ceil(n / factor)), float64.

    The grids are those of `bicubic_matrix`: coarse sample p lies at p factor + (factor - 1) / 2 of
    the fine one, and the coarse signal goes on by half-sample symmetric reflection.
    """
    coarse = -(-n // factor)
    place = (torch.arange(n).double() - (factor - 1) / 2) / factor
    taps = place.floor().long()[:, None] + torch.arange(-1, 3)
    matrix = torch.zeros(n, coarse, dtype=torch.float64)
    return matrix.scatter_add_(1, reflected(taps, coarse), keys_cubic(taps - place[:, None]))


@dataclass(frozen=True, eq=False)
class Downsample(Separable):
    """Decimation by a whole factor: y has ceil(H / factor) x ceil(W / factor) pixels.

    factor: whole number, from 1 (nothing happens) to the shorter side. size: (H, W) of the image.
    Raises InvdiffError for any other factor.
    """

    factor: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        size = checked_size(self.size)
        if not whole(self.factor) or self.factor > min(size):
            raise InvdiffError(
                f"The factor must be a whole number from 1 to {min(size)} for an image of "
                f"{size[0]} x {size[1]} pixels, found {self.factor}."
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "factor", int(self.factor))

    def axis(self, n: int) -> Tensor:
        """The matrix along an axis of n pixels, float64."""
        raise NotImplementedError

    @cached_property
    def left(self) -> Tensor:
        return self.axis(self.size[0])

    @cached_property
    def right(self) -> Tensor:
        return self.axis(self.size[1])


@dataclass(frozen=True, eq=False)
class AveragePool(Downsample):
    """Each pixel of y is the mean over a block of factor x factor pixels of x.

    Where factor does not divide a side, the last block is the mean over the smaller block that is
    left. The singular values of whole blocks are 1 / factor (Kawar et al. 2022, arXiv:2201.11793):
    where all blocks are whole, A A^T = 1 / factor^2, and `solve` and `pinv` need no decomposition.
    """

    def axis(self, n: int) -> Tensor:
        return average_matrix(n, self.factor)

    @property
    def _even(self) -> bool:
        """Whether all blocks are whole."""
        return not any(side % self.factor for side in self.size)

    def __call__(self, x: Tensor) -> Tensor:
        if not self._even:
            return super().__call__(x)
        y = F.avg_pool2d(x.flatten(0, -3), self.factor)
        return y.reshape(*x.shape[:-2], *y.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        if not self._even:
            return super().adjoint(y)
        return self._spread(y / self.factor**2)

    def _spread(self, y: Tensor) -> Tensor:
        """Every pixel of y repeated over its block."""
        (h, w), f = y.shape[-2:], self.factor
        x = y[..., :, None, :, None].expand(*y.shape[:-2], h, f, w, f)
        return x.reshape(*y.shape[:-2], h * f, w * f)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        if not self._even:
            return super().solve(b, shift)
        return (b - self._spread(self(b) / (1 + shift * self.factor**2))) / shift

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        if not self._even:
            return super().ridge(y, shift)
        return self._spread(y / (1 + shift * self.factor**2))

    def pinv(self, y: Tensor) -> Tensor:
        return self._spread(y) if self._even else super().pinv(y)


@dataclass(frozen=True, eq=False)
class Bicubic(Downsample):
    """Antialiased bicubic decimation, as MATLAB's imresize and Shocher's Resizer do it.

    Per axis: Keys' cubic (a = -1/2) stretched by factor, 4 factor taps, centre aligned, half-sample
    symmetric reflection, rows that sum to 1 (Keys 1981, doi:10.1109/TASSP.1981.1163711).
    """

    def axis(self, n: int) -> Tensor:
        return bicubic_matrix(n, self.factor)


@dataclass(frozen=True, eq=False)
class Upsample(Separable):
    """Enlargement: images of ceil(H / factor) x ceil(W / factor) pixels to H x W.

    For any operator A on large images, `A @ Upsample(factor, size)` is the same measurement of
    small ones.
    factor: whole number above 0. size: (H, W) of the large image.
    kind "nearest" repeats pixels, so that AveragePool(factor, size) takes it back exactly;
    "bicubic" is Keys' cubic interpolation (a = -1/2).
    """

    factor: int
    size: tuple[int, int]
    kind: Literal["nearest", "bicubic"] = "nearest"

    def __post_init__(self) -> None:
        if not whole(self.factor):
            raise InvdiffError(
                f"The factor of an enlargement is a whole number above 0, found {self.factor}."
            )
        if self.kind not in _UP:
            raise InvdiffError(f"Enlargements are {' and '.join(_UP)}, found {self.kind!r}.")
        object.__setattr__(self, "size", checked_size(self.size))
        object.__setattr__(self, "factor", int(self.factor))

    def __call__(self, x: Tensor) -> Tensor:
        if self.kind == "bicubic":
            return super().__call__(x)
        x = x.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        return x[..., : self.size[0], : self.size[1]].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        if self.kind == "bicubic":
            return super().adjoint(y)
        bottom, right = (-n % self.factor for n in self.size)
        y = F.pad(y, (0, right, 0, bottom))
        y = y.reshape(*y.shape[:-1], -1, self.factor).sum(-1)
        return y.reshape(*y.shape[:-2], -1, self.factor, y.shape[-1]).sum(-2)

    @cached_property
    def left(self) -> Tensor:
        return _UP[self.kind](self.size[0], self.factor)

    @cached_property
    def right(self) -> Tensor:
        return _UP[self.kind](self.size[1], self.factor)


_UP = {"nearest": nearest_up_matrix, "bicubic": bicubic_up_matrix}
