"""The adjoint of a linear operator as an operator of its own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Linear, Spectral

MISFITS = (RuntimeError, ValueError, IndexError, TypeError)
"""What an adjoint may raise for an array that is no measurement of its operator."""


@dataclass(frozen=True, eq=False)
class Transposed(Linear):
    """y = base^T x: its images are the measurements of base, and its measurements base's images.

    Made by `A.T`. Where base measures complex numbers, the images are complex, so that it stands in
    compositions, as `A.T @ A`, and not alone in a `Problem`.
    """

    base: Linear

    @property
    def cg_iterations(self) -> int:
        return self.base.cg_iterations

    @property
    def cg_tol(self) -> float:
        return self.base.cg_tol

    @property
    def T(self) -> Linear:
        return self.base

    def __call__(self, x: Tensor) -> Tensor:
        return self.base.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.base(y)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        for dtype in (torch.float32, torch.complex64):
            try:
                with warnings.catch_warnings():  # of what is no number of this kind
                    warnings.simplefilter("ignore")
                    x = self.base.adjoint(torch.zeros(1, *x_shape, dtype=dtype))
                found = tuple(x.shape[1:])
                if tuple(self.base.y_shape(found)) == tuple(x_shape):
                    return found
            except MISFITS:
                continue
        raise InvdiffError(
            f"The transpose of {type(self.base).__name__} takes measurements of it, found arrays "
            f"of shape {tuple(x_shape)}, which it does not make."
        )

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 1e-4) -> float:
        return self.base.norm(None if x_shape is None else self.y_shape(x_shape), tol)


@dataclass(frozen=True, eq=False)
class TransposedSpectral(Transposed):
    """y = base^T x = V s U^T x with solve, ridge and pinv in closed form.

    It is not `Spectral`: of its images, those that base cannot measure have no basis here.
    """

    base: Spectral

    def solve(self, b: Tensor, shift: float) -> Tensor:
        """(A A^T + shift)^-1 b; what base cannot measure is divided by shift."""
        c = self.base.Ut(b)
        s2 = self.base._as("s", c) ** 2
        return (b - self.base.U(s2 / (s2 + shift) * c)) / shift

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        c = self.base.Vt(y)
        s = self.base._as("s", c)
        return self.base.U(s / (s**2 + shift) * c)

    def pinv(self, y: Tensor) -> Tensor:
        return self.base.U(self.base.inverse_spectrum(y) * self.base.Vt(y))
