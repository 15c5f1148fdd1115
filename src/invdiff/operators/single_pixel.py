"""The single-pixel camera: a mirror array shows patterns of on and off, one detector adds up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.operators.algebra import Linear
from invdiff.operators.sensing import WalshHadamard


@dataclass(frozen=True, eq=False)
class SinglePixel(Linear):
    """y = mean over pixels of p x, for patterns p of 0 and 1, and of their complements 1 - p.

    Duarte et al. 2008, Single-pixel imaging via compressive sampling, doi:10.1109/MSP.2007.914730.
    base: which Walsh-Hadamard patterns h of 1 and -1; p = (1 + h) / 2. Images (B, C, H, W) to
    (B, C, 2, keep): light through p, then through 1 - p. Mirrors cannot be negative; the
    `difference` of the two is what h would measure, and whatever the detector adds to both, such as
    its dark current, is gone. Its noise has sqrt(2) times the standard deviation of one reading.
    """

    base: WalshHadamard

    @property
    def _norm(self) -> float:
        """Length of a pattern of 1 and -1: base has patterns of length 1."""
        return math.sqrt(self.base.size[0] * self.base.size[1])

    def __call__(self, x: Tensor) -> Tensor:
        total = x.mean((-2, -1))[..., None]
        signed = self.base(x) / self._norm
        return torch.stack([total + signed, total - signed], dim=-2) / 2

    def adjoint(self, y: Tensor) -> Tensor:
        plus, minus = y.unbind(-2)
        total = (plus + minus).sum(-1)[..., None, None] / self._norm**2
        return (total + self.base.adjoint(plus - minus) / self._norm) / 2

    def difference(self, y: Tensor) -> Tensor:
        """What `base` measures, (B, C, keep), from readings (B, C, 2, keep)."""
        return (y[..., 0, :] - y[..., 1, :]) * self._norm

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        *channels, keep = self.base.y_shape(x_shape)
        return (*channels, 2, keep)
