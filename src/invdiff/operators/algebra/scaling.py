"""Operators times numbers: each stays on its rung of the ladder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import admitted_as, checked
from invdiff.operators.algebra import Linear, Operator, Piece, PseudoInvertible, Spectral


def _check_scale(scale: float) -> None:
    if scale == 0:
        raise InvdiffError("A scale is a finite number that is not 0, found 0.")


def _as_able_as(whole: Operator, base: Operator) -> None:
    for name in ("differentiable", "guesses"):
        object.__setattr__(whole, name, getattr(base, name))


@dataclass(frozen=True, eq=False)
class ScaledOperator(Operator):
    """scale * base(x), scale != 0, of an operator that need not be linear."""

    base: Operator
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        _as_able_as(self, self.base)

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * self.base(x)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        c = self.scale
        return tuple(Piece(p.low, p.high, c * p.slope, c * p.offset) for p in self.base.pieces)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.base.vjp(x, self.scale * v)

    def pull(self, x: Tensor, r: Tensor) -> Tensor:
        return self.base.pull(x, self.scale * r)

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        return self.base.guess(y / self.scale, x_shape)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.base.y_shape(x_shape)

    def restrict(self, y: Tensor) -> Tensor:
        return self.base.restrict(y)

    def _scaled(self, scale: float) -> Operator:
        return scaled(self.base, scale * self.scale)


@dataclass(frozen=True, eq=False)
class ScaledPseudoInvertible(PseudoInvertible):
    """scale * base(x), scale != 0, with the generalised inverse base^+(y / scale).

    Where base rounds (`Quantize`, `JPEG`), so does y / scale, by the last bit: a value on an edge
    between two bins may then fall into the other one.
    """

    base: PseudoInvertible
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        _as_able_as(self, self.base)

    __call__ = ScaledOperator.__call__
    vjp = ScaledOperator.vjp
    pull = ScaledOperator.pull
    guess = ScaledOperator.guess
    y_shape = ScaledOperator.y_shape
    restrict = ScaledOperator.restrict
    _scaled = ScaledOperator._scaled

    def pinv(self, y: Tensor) -> Tensor:
        return self.base.pinv(y / self.scale)

    def consistent(self, x_shape: tuple[int, ...]) -> bool:
        return self.base.consistent(x_shape)

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        return self.base.onto(x_shape)

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        return self.base.one_to_one(x_shape)


@dataclass(frozen=True, eq=False)
class Scaled(Linear):
    """scale * base(x), scale != 0."""

    base: Linear
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    @property
    def cg_iterations(self) -> int:
        return self.base.cg_iterations

    @property
    def cg_tol(self) -> float:
        return self.base.cg_tol

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * self.base(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.scale * self.base.adjoint(y)

    def iterates(self, like: Tensor) -> bool:
        return self.base.iterates(like)

    def iterated(self, b: Tensor, shift: float, enough: float = 0.0) -> Tensor:
        s2 = self.scale**2
        return self.base.iterated(b / s2, shift / s2, enough / s2)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        return self.base.solve(b, shift / self.scale**2) / self.scale**2

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        return self.base.ridge(y / self.scale, shift / self.scale**2)

    def pinv(self, y: Tensor) -> Tensor:
        return self.base.pinv(y / self.scale)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.base.y_shape(x_shape)

    def restrict(self, y: Tensor) -> Tensor:
        return self.base.restrict(y)

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        return self.base.onto(x_shape)

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        return self.base.one_to_one(x_shape)

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 1e-4) -> float:
        return abs(self.scale) * self.base.norm(x_shape, tol)

    def _scaled(self, scale: float) -> Linear:
        return scaled(self.base, scale * self.scale)


@dataclass(frozen=True, eq=False)
class ScaledSpectral(Spectral):
    """scale * base(x) with a singular value decomposition; a negative scale turns U."""

    base: Spectral
    scale: float

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    __call__ = Scaled.__call__
    adjoint = Scaled.adjoint
    solve = Scaled.solve
    ridge = Scaled.ridge
    pinv = Scaled.pinv
    y_shape = Scaled.y_shape
    restrict = Scaled.restrict
    _scaled = Scaled._scaled

    @property
    def s(self) -> Tensor:
        return abs(self.scale) * self.base.s

    def V(self, c: Tensor) -> Tensor:
        return self.base.V(c)

    def Vt(self, x: Tensor) -> Tensor:
        return self.base.Vt(x)

    def seen(self, c: Tensor) -> Tensor:
        return self.base.seen(c)

    def V_seen(self, c: Tensor) -> Tensor:
        return self.base.V_seen(c)

    def Vt_seen(self, x: Tensor) -> Tensor:
        return self.base.Vt_seen(x)

    def U(self, c: Tensor) -> Tensor:
        return self.base.U(c if self.scale > 0 else -c)

    def Ut(self, y: Tensor) -> Tensor:
        c = self.base.Ut(y)
        return c if self.scale > 0 else -c


@overload
def scaled(base: Linear, scale: float) -> Linear: ...
@overload
def scaled(base: Operator, scale: float) -> Operator: ...
@checked
def scaled(base: Operator, scale: float) -> Operator:
    """scale * base, on the same rung of the ladder as base; scale must not be 0, and finite."""
    _check_scale(scale)
    return base if scale == 1 else base._scaled(scale)


def multiplied(base: Operator, scale: Any) -> Operator:
    """scale * base. Raises InvdiffError unless scale is a finite number that is not 0."""
    if isinstance(scale, Operator):
        raise InvdiffError("Operators are not multiplied by *; A after B is written A @ B.")
    if isinstance(scale, Tensor | np.ndarray) and scale.ndim > 0:
        raise InvdiffError(
            "An operator is multiplied by one number, found an array of shape "
            f"{tuple(scale.shape)}; Weighted(array) @ A multiplies each entry of its measurement."
        )
    return scaled(base, admitted_as(float, scale, "An operator's factor"))


def divided(base: Operator, divisor: float) -> Operator:
    """base / divisor. Raises InvdiffError unless divisor is a finite number that is not 0."""
    number = float(admitted_as(float, divisor, "An operator's divisor"))
    if number == 0:
        raise InvdiffError("An operator is divided by a finite number that is not 0, found 0.")
    return scaled(base, 1 / number)
