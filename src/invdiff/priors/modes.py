"""Cosine modes of images and of their channels, and covariances that are diagonal in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from invdiff.core.tensors import times
from invdiff.operators.dct import dct2, dct_matrix, idct2


@dataclass(frozen=True, eq=False)
class Covariance:
    """V = S^(1/2) T^T L T S^(1/2): products with it and with a root of it.

    diagonal: L, (1, channels, H, W). factors: S, (B, 1, ..., H, W), or None for S = 1.
    """

    diagonal: Tensor
    factors: Tensor | None = None

    @property
    def scale(self) -> Tensor:
        """S^(1/2), or 1, computed once."""
        if "_scale" not in self.__dict__:
            S = self.factors
            found = torch.ones(()).to(self.diagonal) if S is None else S.sqrt()
            self.__dict__["_scale"] = found
        kept: Tensor = self.__dict__["_scale"]
        return kept

    @property
    def deviation(self) -> Tensor:
        """L^(1/2), computed once."""
        if "_deviation" not in self.__dict__:
            self.__dict__["_deviation"] = self.diagonal.sqrt()
        kept: Tensor = self.__dict__["_deviation"]
        return kept

    @property
    def mean(self) -> Tensor:
        """Mean variance of a number of an image, (B, 1, ...): the mean of L times that of S."""
        S = self.scale.square()
        S = S if self.factors is None else S.flatten(1).mean(1).reshape(-1, *[1] * (S.ndim - 1))
        return self.diagonal.mean() * S

    def scaled(self, size: Tensor) -> Covariance:
        """size V, for size (B, 1, ...)."""
        S = size if self.factors is None else size * self.factors
        return Covariance(self.diagonal, S)

    def averaged(self) -> Covariance:
        """The mean variance everywhere: r^2 I, with S = 1."""
        return Covariance(self.diagonal.mean().expand_as(self.diagonal))

    def __call__(self, v: Tensor) -> Tensor:
        """V v for images (B, C, ..., H, W)."""
        return self.scale * from_modes(self.diagonal * to_modes(self.scale * v), v.shape)

    def root(self, z: Tensor) -> Tensor:
        """S^(1/2) T^T L^(1/2) T z: of covariance V where z is white."""
        return self.scale * from_modes(self.deviation * to_modes(z), z.shape)


def to_modes(x: Tensor) -> Tensor:
    """T x: images (B, C, ..., H, W) to coefficients (B, channels, H, W)."""
    return _mixed(dct2(x.reshape(len(x), -1, *x.shape[-2:])), x.shape, False)


def from_modes(c: Tensor, shape: torch.Size) -> Tensor:
    """T^T c, in the shape of images."""
    return idct2(_mixed(c, shape, True)).reshape(shape)


def _mixed(c: Tensor, shape: torch.Size, back: bool) -> Tensor:
    """The channels (B, channels, H, W) times `channel_basis`, or its transpose."""
    M = channel_basis(tuple(shape[1:-2]))[0]
    if len(M) == 1:
        return c
    return times((M.mT if back else M).to(c), c.flatten(2)).reshape(c.shape)


@lru_cache(maxsize=16)
def channel_basis(axes: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """(orthonormal matrix, group of each of its rows) for channels (C,), or of clips (C, T).

    Three channels are colours: brightness (1, 1, 1) / sqrt(3) is one group, the two differences are
    another. Other channels, as real and imaginary part, are one group. The frames of a clip are
    turned into cosines along time, each a group of its own.
    """
    if len(axes) == 2:
        (colours, groups), frames = channel_basis(axes[:1]), axes[1]
        own = tuple(g * frames + f for g in groups for f in range(frames))
        return torch.kron(colours, dct_matrix(frames)), own
    if axes[0] == 3:
        rows = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]], dtype=torch.float64)
        return rows / rows.norm(dim=1, keepdim=True), (0, 1, 1)
    return torch.eye(axes[0], dtype=torch.float64), (0,) * axes[0]
