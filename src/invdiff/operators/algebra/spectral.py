"""The highest rung: operators whose singular value decomposition is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.operators.algebra.linear import Linear
from invdiff.operators.algebra.operator import Operator


@dataclass(frozen=True, eq=False)
class Spectral(Linear):
    """A = U s V^T with V square and orthonormal; coefficients keep a natural shape.

    s: singular values >= 0, float64, broadcastable over the coefficients (B, ...).
    V, Vt: coefficients to image and back. U, Ut: coefficients to measurement and back;
    Ut(U(c)) = c where s > 0, and coefficients with s = 0 carry nothing. Where most of the
    coefficients are unseen, V_seen and Vt_seen save the work on them.
    """

    @property
    def s(self) -> Tensor:
        raise NotImplementedError

    def V(self, c: Tensor) -> Tensor:
        raise NotImplementedError

    def Vt(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def U(self, c: Tensor) -> Tensor:
        raise NotImplementedError

    def Ut(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def seen(self, c: Tensor) -> Tensor:
        """The block of an array of coefficients outside which s = 0; all of it by default."""
        return c

    def V_seen(self, c: Tensor) -> Tensor:
        """V of coefficients of that block, the others being 0."""
        return self.V(c)

    def Vt_seen(self, x: Tensor) -> Tensor:
        """seen(Vt(x)), at the cost of that block."""
        return self.Vt(x)

    def spectrum(self, like: Tensor) -> Tensor:
        """s, real, in the precision of like; numerically zero values (s <= n eps max s) are 0.

        n is the longest side of the coefficient array; this is the usual rank decision of pinv.
        """

        def cut() -> Tensor:
            s = self.s
            least = s.max() * torch.finfo(like.dtype).eps * max(s.shape)
            return torch.where(s > least, s, 0.0).to(like.device, like.dtype.to_real())

        return self._once("spectrum", like, cut)

    def inverse_spectrum(self, like: Tensor) -> Tensor:
        """1 / s, and 0 where s is numerically zero: the singular values of A^+."""

        def inverse() -> Tensor:
            s = self.spectrum(like)
            return torch.where(s > 0, 1 / torch.where(s > 0, s, 1.0), 0.0)

        return self._once("inverse spectrum", like, inverse)

    def rank(self, x_shape: tuple[int, ...]) -> int:
        """Singular values above 0 for one image of x_shape, by the rank decision of float32; the
        smallest number where the rows of a batch differ."""
        c = self.Vt(torch.zeros(1, *x_shape))
        seen = (self.spectrum(c) > 0) & torch.ones_like(c, dtype=torch.bool)
        return int(seen.flatten(1).sum(1).min()) * (2 if c.is_complex() else 1)

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        y = self(torch.zeros(1, *x_shape))[0]
        return self.rank(x_shape) == y.numel() * (2 if y.is_complex() else 1)

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        return self.rank(x_shape) == math.prod(x_shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.U(self.spectrum(x) * self.Vt(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.V(self.spectrum(y) * self.Ut(y))

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return self.V(self.Vt(b) * (1 / (self._as("s", b) ** 2 + shift)))

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        c = self.Ut(y)
        s = self._as("s", c)
        return self.V(s / (s**2 + shift) * c)

    def pinv(self, y: Tensor) -> Tensor:
        return self.V(self.inverse_spectrum(y) * self.Ut(y))

    @property
    def T(self) -> Linear:
        from invdiff.operators.algebra.transposed import TransposedSpectral

        return TransposedSpectral(self)

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 0.0) -> float:
        """The largest singular value, exactly; x_shape and tol are not needed."""
        return float(self.s.max())

    def _scaled(self, scale: float) -> Operator:
        from invdiff.operators.algebra.scaling import ScaledSpectral

        return ScaledSpectral(self, scale)


class Diagonal(Spectral):
    """Entry by entry: V is the identity, and U keeps what was measured."""

    def V(self, c: Tensor) -> Tensor:
        return c

    def Vt(self, x: Tensor) -> Tensor:
        return x

    def U(self, c: Tensor) -> Tensor:
        return self.restrict(c)

    def Ut(self, y: Tensor) -> Tensor:
        return self.restrict(y)


@dataclass(frozen=True, eq=False)
class Identity(Diagonal):
    """y = x: denoising."""

    @property
    def T(self) -> Linear:
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def cosine_power(self, variance: Tensor) -> Tensor:
        return variance

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    @property
    def s(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)
