"""New operators from others: composed, stacked, shifted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.arguments import checked
from invdiff.operators.algebra import Linear, Operator, PseudoInvertible
from invdiff.operators.algebra.scaling import Scaled, ScaledSpectral, scaled

__all__ = [
    "Affine",
    "Composed",
    "ComposedLinear",
    "ComposedPseudoInvertible",
    "Scaled",  # run.json of earlier versions finds it here
    "ScaledSpectral",
    "Stack",
    "affine",
    "compose",
    "scaled",
]


def _as_differentiable_as(whole: Operator, *parts: Operator) -> None:
    object.__setattr__(whole, "differentiable", all(p.differentiable for p in parts))


@dataclass(frozen=True, eq=False)
class Composed(Operator):
    """outer after inner; differentiable where both are."""

    outer: Operator
    inner: Operator

    def __post_init__(self) -> None:
        _as_differentiable_as(self, self.outer, self.inner)

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.inner.vjp(x, self.outer.vjp(self.inner(x), v))

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.outer.y_shape(self.inner.y_shape(x_shape))

    def restrict(self, y: Tensor) -> Tensor:
        return self.outer.restrict(y)

    def _scaled(self, scale: float) -> Operator:
        """The outer operator scaled: what is known of the whole stays known."""
        return dataclasses.replace(self, outer=scaled(self.outer, scale))


@dataclass(frozen=True, eq=False)
class ComposedPseudoInvertible(PseudoInvertible):
    """outer after inner, not both linear, with inner^+ after outer^+ as its generalised inverse.

    That is one, h(h^+(h(x))) = h(x), where every measurement of inner has an image (inner is onto:
    JPEG of a block mean), or where outer loses nothing (it is one-to-one). Elsewhere, as for a mask
    over a JPEG, it is an approximation, which solvers are offered only with approximate = True.
    """

    outer: PseudoInvertible
    inner: PseudoInvertible
    approximate: bool = False

    def __post_init__(self) -> None:
        _as_differentiable_as(self, self.outer, self.inner)

    __call__ = Composed.__call__
    vjp = Composed.vjp
    y_shape = Composed.y_shape
    restrict = Composed.restrict
    _scaled = Composed._scaled

    def pinv(self, y: Tensor) -> Tensor:
        return self.inner.pinv(self.outer.pinv(y))

    def consistent(self, x_shape: tuple[int, ...]) -> bool:
        between = self.inner.y_shape(x_shape)
        if not (self.outer.consistent(between) and self.inner.consistent(x_shape)):
            return False
        return self.inner.onto(x_shape) or self.outer.one_to_one(between)

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        return self.inner.onto(x_shape) and self.outer.onto(self.inner.y_shape(x_shape))

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        between = self.inner.y_shape(x_shape)
        return self.inner.one_to_one(x_shape) and self.outer.one_to_one(between)


@dataclass(frozen=True, eq=False)
class ComposedLinear(Linear):
    """outer after inner, both linear. solve and pinv are iterative: the product
    of two pseudo-inverses is not the pseudo-inverse of the product. Of the parts' bounds on
    iterations the smaller one holds."""

    outer: Linear
    inner: Linear

    @property
    def cg_iterations(self) -> int:
        return min(self.outer.cg_iterations, self.inner.cg_iterations)

    @property
    def cg_tol(self) -> float:
        return min(self.outer.cg_tol, self.inner.cg_tol)

    __call__ = Composed.__call__
    y_shape = Composed.y_shape
    restrict = Composed.restrict
    _scaled = Composed._scaled

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))


def compose(outer: Operator, inner: Operator) -> Operator:
    """outer after inner, on the highest rung that both reach; at most linear."""
    if isinstance(outer, Linear) and isinstance(inner, Linear):
        return ComposedLinear(outer, inner)
    if isinstance(outer, PseudoInvertible) and isinstance(inner, PseudoInvertible):
        return ComposedPseudoInvertible(outer, inner)
    return Composed(outer, inner)


@dataclass(frozen=True, eq=False)
class Stack(Linear):
    """Several linear measurements of one image, each flattened, side by side: y is (B, m)."""

    parts: tuple[Linear, ...]
    x_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InvdiffError("A stack holds at least one operator, found none.")

    def _sizes(self) -> list[tuple[int, ...]]:
        return [p.y_shape(self.x_shape) for p in self.parts]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([p(x).flatten(1) for p in self.parts], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        out = torch.zeros(y.shape[0], *self.x_shape, dtype=y.dtype.to_real(), device=y.device)
        for part, piece in zip(self.parts, self.split(y), strict=True):
            out = out + part.adjoint(piece)
        return out

    def split(self, y: Tensor) -> list[Tensor]:
        """The parts' own measurements, each in its own shape."""
        shapes = self._sizes()
        pieces = torch.split(y, [int(torch.Size(s).numel()) for s in shapes], dim=1)
        return [p.reshape(-1, *s) for p, s in zip(pieces, shapes, strict=True)]

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(x_shape) != tuple(self.x_shape):
            raise InvdiffError(
                f"This stack measures images of shape {tuple(self.x_shape)}, found images of shape "
                f"{tuple(x_shape)}."
            )
        return (sum(int(torch.Size(s).numel()) for s in self._sizes()),)

    def restrict(self, y: Tensor) -> Tensor:
        parts = [p.restrict(v) for p, v in zip(self.parts, self.split(y), strict=True)]
        return torch.cat([v.flatten(1) for v in parts], dim=1)


@dataclass(frozen=True, eq=False)
class Affine(PseudoInvertible):
    """linear(x) + offset; offset broadcasts over y. `centre` moves it into y."""

    linear: Linear
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return z + self._as("offset", z)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.linear.adjoint(v)

    def pinv(self, y: Tensor) -> Tensor:
        return self.linear.pinv(y - self._as("offset", y))

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        return self.linear.onto(x_shape)

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        return self.linear.one_to_one(x_shape)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        y_shape, have = self.linear.y_shape(x_shape), tuple(self.offset.shape)
        pairs = zip(reversed(have[-len(y_shape) :]), reversed(y_shape), strict=False)
        if len(have) > 1 + len(y_shape) or 0 in have or any(m not in (1, n) for m, n in pairs):
            raise InvdiffError(
                f"An offset of shape {have} cannot be added to measurements of shape "
                f"{tuple(y_shape)} each; give one number, or one for each."
            )
        return y_shape

    def restrict(self, y: Tensor) -> Tensor:
        return self.linear.restrict(y)

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 1e-4) -> float:
        """That of the linear part."""
        return self.linear.norm(x_shape, tol)

    def _scaled(self, scale: float) -> Operator:
        return Affine(scaled(self.linear, scale), scale * self.offset)


@checked
def affine(base: Linear, scale: float, offset: float) -> Operator:
    """scale * base(x) + offset: for example a sensor that counts from 0, a prior on [-1, 1]."""
    linear = scaled(base, scale)
    return Affine(linear, torch.tensor(offset, dtype=torch.float64)) if offset else linear
