"""Colour measurements: one weighted sum of the channels for each pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Spectral

REC601 = (0.299, 0.587, 0.114)
"""Luma weights of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True, eq=False)
class Grayscale(Spectral):
    """y = sum over channels of weights[c] x[c]; images (B, C, H, W) to y (B, 1, H, W).

    weights: one finite number for each channel, not all zero. Videos (B, C, T, H, W) are measured
    frame by frame.
    Decomposition: V turns the colour axis so that its first direction is weights / |weights|,
    where s = |weights|; the others have s = 0. Coefficients have the shape of the images, and for
    videos (B, T, C, H, W): the colour axis is always the third from the end.
    Raises InvdiffError for weights without a direction and for images with other channels.
    """

    weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)

    def __post_init__(self) -> None:
        weights = tuple(float(w) for w in self.weights)
        if not all(math.isfinite(w) for w in weights) or not any(weights):
            raise InvdiffError(
                f"Colour weights are finite numbers that are not all zero, found {weights}."
            )
        object.__setattr__(self, "weights", weights)

    @cached_property
    def column(self) -> Tensor:
        """The weights, shape (C, 1, 1), float64."""
        return torch.tensor(self.weights, dtype=torch.float64)[:, None, None]

    @cached_property
    def basis(self) -> Tensor:
        """V, shape (C, C), float64: a Householder reflection that takes the first axis to w / |w|.

        The mirror is the one that adds numbers of the same sign, so that nothing cancels.
        """
        w = torch.tensor(self.weights, dtype=torch.float64)
        sign = 1.0 if w[0] >= 0 else -1.0
        normal = w / w.norm()
        normal[0] += sign
        eye = torch.eye(len(w), dtype=torch.float64)
        return sign * (2 * torch.outer(normal, normal) / normal.square().sum() - eye)

    @cached_property
    def s(self) -> Tensor:
        """(|weights|, 0, 0), shape (C, 1, 1), float64."""
        s = torch.zeros(len(self.weights), 1, 1, dtype=torch.float64)
        s[0] = self.column.norm()
        return s

    def __call__(self, x: Tensor) -> Tensor:
        z = (self._as("column", x) * x.movedim(1, -3)).sum(-3, keepdim=True)
        return z.movedim(-3, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        return (self._as("column", y) * y.movedim(1, -3)).movedim(-3, 1)

    def V(self, c: Tensor) -> Tensor:
        return (self._as("basis", c) @ c.flatten(-2)).reshape(c.shape).movedim(-3, 1)

    def Vt(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -3)
        return (self._as("basis", x).mT @ x.flatten(-2)).reshape(x.shape)

    def U(self, c: Tensor) -> Tensor:
        return c[..., :1, :, :].movedim(-3, 1)

    def Ut(self, y: Tensor) -> Tensor:
        return F.pad(y.movedim(1, -3), (0, 0, 0, 0, 0, len(self.weights) - 1))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(x_shape) not in (3, 4) or x_shape[0] != len(self.weights):
            raise InvdiffError(
                f"{len(self.weights)} colour weights are for images of shape "
                f"({len(self.weights)}, height, width) or videos of shape ({len(self.weights)}, "
                f"frames, height, width), found shape {tuple(x_shape)}."
            )
        return (1, *x_shape[1:])
