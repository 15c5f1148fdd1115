"""Operators that weigh entries, mix an axis, or filter noise until it is white."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import StationaryGaussian
from invdiff.noise.coloured import along
from invdiff.operators.algebra import Linear, Spectral
from invdiff.operators.algebra.spectral import Diagonal
from invdiff.operators.circular_blur import hartley
from invdiff.operators.sizes import check_image


@dataclass(frozen=True, eq=False)
class Weighted(Diagonal):
    """y = weights * x: every entry has a gain of its own; 0 where nothing is measured.

    weights: >= 0 and finite, with as many axes as a batch of images, each 1 or that of x; one row
    for each measurement, or one for all. Entries of y where the weight is 0 are never read.
    Decomposition: V = identity, s = weights, and U keeps what has a weight.
    """

    weights: Tensor

    batched: ClassVar[tuple[str, ...]] = ("weights",)

    def __post_init__(self) -> None:
        w = self.weights
        if w.ndim < 2 or w.numel() == 0 or w.is_complex() or not bool((w >= 0).all()):
            raise InvdiffError(
                "Weights are real numbers of at least 0 in an array with the axes of the images, "
                f"batch first, found shape {tuple(w.shape)} of {w.dtype}."
            )

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        have = tuple(self.weights.shape[1:])
        if len(have) != len(x_shape) or any(
            w not in (1, n) for w, n in zip(have, x_shape, strict=True)
        ):
            raise InvdiffError(
                f"Weights of shape {have} per image do not fit images of shape {tuple(x_shape)}; "
                "every axis is 1 or that of the image."
            )
        return tuple(x_shape)

    def restrict(self, y: Tensor) -> Tensor:
        return torch.where(self._as("weights", y) > 0, y, y.new_zeros(()))

    @property
    def s(self) -> Tensor:
        return self.weights.double()

    def __call__(self, x: Tensor) -> Tensor:
        return self._as("weights", x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self._as("weights", y) * self.restrict(y)


@dataclass(frozen=True, eq=False)
class Mixed(Linear):
    """Every vector along an axis of x times one square matrix: coils, channels, bands.

    matrix: (k, k), real, or complex for complex x. axis: of a batch, from 1 on; None takes all
    numbers of an image in their order as one axis.
    """

    matrix: Tensor
    axis: int | None = 1

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise InvdiffError(
                f"The matrix that mixes an axis is square, found {tuple(self.matrix.shape)}."
            )

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.axis is not None and not 1 <= self.axis <= len(x_shape):
            raise InvdiffError(f"A batch of images {tuple(x_shape)} has no axis {self.axis}.")
        size = torch.Size(x_shape).numel() if self.axis is None else x_shape[self.axis - 1]
        if size != len(self.matrix):
            raise InvdiffError(
                f"A matrix of {len(self.matrix)} x {len(self.matrix)} does not fit {size} numbers "
                f"of images of shape {tuple(x_shape)}."
            )
        return tuple(x_shape)

    def __call__(self, x: Tensor) -> Tensor:
        return along(self._as("matrix", x).to(x.dtype), x, self.axis)

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 0.0) -> float:
        """The norm of the matrix, exactly; x_shape and tol are not needed."""
        wide = torch.complex128 if self.matrix.is_complex() else torch.float64
        return float(torch.linalg.matrix_norm(self.matrix.detach().cpu().to(wide), 2))

    def adjoint(self, y: Tensor) -> Tensor:
        return along(self._as("matrix", y).mH.to(y.dtype), y, self.axis)


@dataclass(frozen=True, eq=False)
class Whitening(Spectral):
    """y = level L^-1 x for stationary noise L n: a filter that makes it white.

    noise: what is made white. size: (H, W) of the images.
    Decomposition: V is the Hartley transform of the axes of colour, U = V, and
    s = level / sigma(frequency).
    """

    noise: StationaryGaussian
    size: tuple[int, int]

    @cached_property
    def s(self) -> Tensor:
        """Singular values, (1 or 3, H, W), float64."""
        return self.noise.level / self.noise.spectrum(self.size)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        check_image(type(self).__name__, self.size, x_shape)
        self.noise.admit(torch.empty(1, *x_shape, device="meta"))
        return tuple(x_shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.noise.level * self.noise.whiten(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def cosine_power(self, variance: Tensor) -> Tensor:
        """Nearly: the noise repeats at the edge, where cosine modes are reflected."""
        gain = (self.noise.level / self.noise.cosine_spectrum(self.size)).to(variance)
        if len(gain) > 1:  # of colours; each has all frames of a clip
            gain = gain.repeat_interleave(variance.shape[-3] // len(gain), 0)
        return variance * (gain if len(gain) > 1 else gain[0]).square()

    def V(self, c: Tensor) -> Tensor:
        return self.noise.turned(hartley(c), back=True)

    def Vt(self, x: Tensor) -> Tensor:
        return hartley(self.noise.turned(x))

    def U(self, c: Tensor) -> Tensor:
        return self.V(c)

    def Ut(self, y: Tensor) -> Tensor:
        return self.Vt(y)
