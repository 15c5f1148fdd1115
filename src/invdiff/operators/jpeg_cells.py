"""The cells of a JPEG file: the interval in which it leaves each coefficient, and draws in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.operators.dct import dct2, dct_matrix, idct2
from invdiff.operators.jpeg import JPEG, YCBCR

FACTORS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
"""Rows and columns of pixels that share a colour difference."""
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
        return _blocks(_reduced(self.values(x), self.factors))

    def values(self, x: Tensor) -> Tensor:
        """The plane of images at their full size, (B, H, W); brightness about 128."""
        levels = LEVELS * (self.weights.to(x)[:, None, None] * x).sum(1)
        return levels - 0.5 * float(self.weights.sum() > 0.5)

    def spread(self, change: Tensor, size: tuple[int, int]) -> Tensor:
        """A change of coefficients as one of the plane, (B, H, W): equal in averaged pixels."""
        r, c = self.factors
        plane = _unblocked(change).repeat_interleave(r, 1).repeat_interleave(c, 2)
        return plane[:, : size[0], : size[1]]


def planes(A: JPEG, y: Tensor) -> list[Plane]:
    """The planes of decoded files y (B, 1 or 3, H, W) with their cells.

    Colour differences that decoders interpolate between pixels (weights 3/4 and 1/4, as libjpeg's
    do) are taken back to the stored ones first. Cells are the file's own, but where the decoder
    clipped at black or white.
    """
    tables = torch.tensor(A._tables(), dtype=torch.float64).reshape(-1, 8, 8).to(y.device)
    matrix = YCBCR if y.shape[1] == 3 else torch.ones(1, 1, dtype=torch.float64)
    found = []
    for k, row in enumerate(matrix):
        factors = FACTORS[A.subsampling] if k and len(matrix) == 3 else (1, 1)
        plane = Plane(row, tables[min(k, len(tables) - 1)], factors, torch.zeros(0))
        stored = _stored(_reduced(plane.values(y.double()), factors), factors)
        index = (_blocks(stored) / plane.steps).round()
        found.append(Plane(row, plane.steps, factors, index))
    return found


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
    """The plane whose interpolation has these means: means are 1/8, 3/4, 1/8 of neighbours."""
    if factors == (1, 1):
        return plane
    gains = [
        0.75 + 0.25 * torch.cos(math.pi * torch.arange(n).to(plane) / n)
        if f == 2
        else torch.ones(n).to(plane)
        for n, f in zip(plane.shape[-2:], factors, strict=True)
    ]
    return idct2(dct2(plane) / (gains[0][:, None] * gains[1]))


def _blocks(plane: Tensor) -> Tensor:
    """DCT coefficients of (B, H, W), (B, rows, columns, 8, 8); the border fills the last blocks."""
    height, width = plane.shape[1:]
    padded = F.pad(plane[:, None], (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    return dct2(padded.reshape(-1, rows, 8, columns, 8).transpose(2, 3))


def _unblocked(c: Tensor) -> Tensor:
    """The inverse of `_blocks`, with the padding."""
    return idct2(c).transpose(2, 3).flatten(3, 4).flatten(1, 2)
