"""The cells of a JPEG file: the interval in which it leaves each coefficient, and draws in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.operators.dct import dct2, dct_matrix, idct2
from invdiff.operators.jpeg import JPEG, YCBCR, blocks, image
from invdiff.operators.jpeg_sampling import INTERPOLATED, factors_of

LEVELS = 127.5
"""Grey levels in a unit of an image on [-1, 1]."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Brightness or a colour difference of a decoded file.

    weights: of the channels of an image, (C,). steps: of quantisation, (8, 8). factors: rows and
    columns of pixels that are averaged. index: of the cell of each coefficient, (B, rows, columns,
    8, 8): it lies in steps * [index - 1/2, index + 1/2].
    """

    weights: Tensor
    steps: Tensor
    factors: tuple[int, int]
    index: Tensor

    def coefficients(self, x: Tensor) -> Tensor:
        """The coefficients of images (B, C, H, W) on [-1, 1], in grey levels about 128."""
        return blocks(_reduced(self.values(x), self.factors))

    def values(self, x: Tensor) -> Tensor:
        """The plane of images at their full size, (B, H, W); brightness about 128."""
        levels = LEVELS * (self.weights.to(x)[:, None, None] * x).sum(1)
        return levels - 0.5 * float(self.weights.sum() > 0.5)

    @property
    def cells(self) -> tuple[Tensor, Tensor]:
        """Lower and upper ends of the cells, each of the shape of index."""
        return (self.index - 0.5) * self.steps, (self.index + 0.5) * self.steps

    def spread(self, change: Tensor, size: tuple[int, int]) -> Tensor:
        """A change of coefficients as one of the plane, (B, H, W): equal in averaged pixels."""
        r, c = self.factors
        rows, columns = 8 * change.shape[1], 8 * change.shape[2]
        plane = image(change, rows, columns).repeat_interleave(r, 1).repeat_interleave(c, 2)
        return plane[:, : size[0], : size[1]]


def planes(A: JPEG, y: Tensor) -> list[Plane]:
    """The planes of decoded files y (B, 1 or 3, H, W) with their cells.

    Colour differences that decoders interpolate between pixels (weights 3/4 and 1/4, as libjpeg's
    do) are taken back to the stored ones first. Cells are the file's own, but where the decoder
    clipped at black or white.
    """
    tables = torch.tensor(A.steps(), dtype=torch.float64).reshape(-1, 8, 8).to(y.device)
    matrix = YCBCR if A.colours == "ycc" else torch.eye(3, dtype=torch.float64)
    matrix = matrix if y.shape[1] == 3 else torch.ones(1, 1, dtype=torch.float64)
    found = []
    for k, row in enumerate(matrix):
        factors = factors_of(A.subsampling)[k] if len(matrix) == 3 else (1, 1)
        plane = Plane(row, tables[min(k, len(tables) - 1)], factors, torch.zeros(0))
        stored = _stored(_reduced(plane.values(y.double()), factors), factors)
        index = (blocks(stored) / plane.steps).round()
        found.append(Plane(row, plane.steps, factors, index))
    return found


@dataclass(frozen=True, eq=False)
class Axis:
    """The way in which a plane is moved while those before it stay.

    direction: of a pixel's channels, (C,), of length 1. gain: grey levels of the plane for a step
    of 1 along it.
    """

    direction: Tensor
    gain: float

    def moved(self, x: Tensor, plane: Plane, change: Tensor) -> Tensor:
        """Images (B, C, H, W) whose coefficients of the plane are changed."""
        step = plane.spread(change, (int(x.shape[-2]), int(x.shape[-1]))) / self.gain
        return x + step.to(x)[:, None] * self.direction.to(x)[:, None, None]


def axes(known: list[Plane]) -> list[Axis]:
    """The axes of planes: with W their weights and W^T = Q R, plane k is R^T u for u = Q^T x, so
    that column k of Q moves it and none before it."""
    Q, R = torch.linalg.qr(torch.stack([plane.weights for plane in known]).mT)
    return [Axis(Q[:, k], float(R[k, k]) * LEVELS) for k in range(len(known))]


def nearest(known: list[Plane], x: Tensor) -> Tensor:
    """Images (B, C, H, W) taken into the cells, plane by plane along their axes.

    What lies in all cells stays. For one plane it is the orthogonal projection; blocks that the
    picture does not fill may be left a little outside, for only their pixels in it are moved.
    """
    for plane, axis in zip(known, axes(known), strict=True):
        c = plane.coefficients(x.double())
        x = axis.moved(x, plane, torch.clamp(c, *plane.cells) - c)
    return x


def coarse_error(known: list[Plane]) -> float:
    """rms of the uniform error q / sqrt(12) of the 4 x 4 lowest frequencies of brightness, in units
    of an image on [-1, 1].

    These are the coefficients that are seldom zero, so that it tells of the tables and not of the
    picture. It is near the noise level at which a denoiser repairs photographs best.
    """
    return float((known[0].steps[:4, :4].square().mean() / 12).sqrt()) / LEVELS


def block_variance(spectrum: Tensor, factors: tuple[int, int]) -> Tensor:
    """Variance of the coefficients of a block, (8, 8), under a stationary law.

    spectrum: variance of the modes of a DCT of (H, W) pixels. The law is seen through the block's
    cosines, averaged over factors pixels.
    """
    down, across = (
        _response(n, f).to(spectrum) for n, f in zip(spectrum.shape[-2:], factors, strict=True)
    )
    return down @ spectrum @ across.mT


def _response(n: int, factor: int) -> Tensor:
    """(8, n): energy of the block's cosines, averaged over factor pixels, at each frequency."""
    taps = dct_matrix(8).repeat_interleave(factor, 1) / factor
    omega = math.pi * torch.arange(n, dtype=torch.float64) / n
    phase = torch.exp(-1j * omega[None, :] * torch.arange(8 * factor)[:, None])
    energy = (taps.to(torch.complex128) @ phase).abs().square()
    return energy / energy.sum(1, keepdim=True) * taps.square().sum(1, keepdim=True)


def _reduced(plane: Tensor, factors: tuple[int, int]) -> Tensor:
    """Means over factors pixels, with the border repeated."""
    if factors == (1, 1):
        return plane
    h, w = plane.shape[-2:]
    pad = (0, -w % factors[1], 0, -h % factors[0])
    return F.avg_pool2d(F.pad(plane[:, None], pad, mode="replicate"), factors)[:, 0]


def _stored(plane: Tensor, factors: tuple[int, int]) -> Tensor:
    """The plane whose interpolation has these means: means are 1/8, 3/4, 1/8 of neighbours. What is
    repeated and not interpolated is its own mean."""
    if factors not in INTERPOLATED:
        return plane
    gains = [
        0.75 + 0.25 * torch.cos(math.pi * torch.arange(n).to(plane) / n)
        if f == 2
        else torch.ones(n).to(plane)
        for n, f in zip(plane.shape[-2:], factors, strict=True)
    ]
    return idct2(dct2(plane) / (gains[0][:, None] * gains[1]))
