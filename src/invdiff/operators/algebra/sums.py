"""Sums and differences of operators that measure the same image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Identity, Linear, Operator
from invdiff.operators.algebra.compose import Affine
from invdiff.operators.algebra.scaling import (
    Scaled,
    ScaledOperator,
    ScaledPseudoInvertible,
    ScaledSpectral,
    scaled,
)

SCALED = (Scaled, ScaledSpectral, ScaledOperator, ScaledPseudoInvertible)


@dataclass(frozen=True, eq=False)
class Summed(Operator):
    """A(x) + B(x) + ...; differentiable where all terms are.

    terms: at least one, whose measurements have the same shape and are all real or all complex.
    """

    terms: tuple[Operator, ...]

    def __post_init__(self) -> None:
        _check_terms(self.terms)
        object.__setattr__(self, "differentiable", all(A.differentiable for A in self.terms))

    def __call__(self, x: Tensor) -> Tensor:
        first, *rest = (A(x) for A in self.terms)
        total = first
        for A, y in zip(self.terms[1:], rest, strict=True):
            _check_alike(self.terms[0], tuple(first.shape[1:]), A, tuple(y.shape[1:]), x.shape[1:])
            if y.is_complex() != first.is_complex():
                raise InvdiffError(
                    f"{_name(self.terms[0])} and {_name(A)} cannot be added: one measures complex "
                    "numbers and the other real ones; stack them instead."
                )
            total = total + y
        return total

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        total = self.terms[0].vjp(x, v)
        for A in self.terms[1:]:
            total = total + A.vjp(x, v)
        return total

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        first = tuple(self.terms[0].y_shape(x_shape))
        for A in self.terms[1:]:
            _check_alike(self.terms[0], first, A, tuple(A.y_shape(x_shape)), x_shape)
        return first

    def restrict(self, y: Tensor) -> Tensor:
        """What no term measures is set to 0."""
        ones = torch.ones_like(y)
        seen = torch.stack([A.restrict(ones) != 0 for A in self.terms]).any(0)
        return torch.where(seen, y, y.new_zeros(()))


@dataclass(frozen=True, eq=False)
class SummedLinear(Linear):
    """A x + B x + ..., all linear. solve and pinv are iterative; of the terms' bounds on iterations
    the smallest one holds."""

    terms: tuple[Linear, ...]

    def __post_init__(self) -> None:
        _check_terms(self.terms)

    @property
    def cg_iterations(self) -> int:
        return min(A.cg_iterations for A in self.terms)

    @property
    def cg_tol(self) -> float:
        return min(A.cg_tol for A in self.terms)

    __call__ = Summed.__call__
    y_shape = Summed.y_shape
    restrict = Summed.restrict

    def adjoint(self, y: Tensor) -> Tensor:
        total = self.terms[0].adjoint(y)
        for A in self.terms[1:]:
            total = total + A.adjoint(y)
        return total


def _check_terms(terms: tuple[Operator, ...]) -> None:
    if not terms:
        raise InvdiffError("A sum holds at least one operator, found none.")


def _name(A: Operator) -> str:
    """The class of what was added, without its factor."""
    return type(A.base if isinstance(A, SCALED) else A).__name__


def _check_alike(
    A: Operator, a: tuple[int, ...], B: Operator, b: tuple[int, ...], x_shape: tuple[int, ...]
) -> None:
    """Raise InvdiffError unless measurements of shapes a and b can be added."""
    if a != b:
        raise InvdiffError(
            f"{_name(A)} and {_name(B)} cannot be added: of images {tuple(x_shape)} they measure "
            f"{a} and {b}; give operators with measurements of one shape, or stack them."
        )


def subtracted(B: Any) -> Operator:
    """-B. Raises InvdiffError when B is no operator."""
    return scaled(_operator(B), -1.0)


def _operator(B: Any) -> Operator:
    if not isinstance(B, Operator):
        raise InvdiffError(
            f"An operator is added to another operator, found {type(B).__name__}; a number or an "
            "array is added to the measurement by affine(A, 1.0, number) or Affine(A, array)."
        )
    return B


def add(A: Operator, B: Any) -> Operator:
    """A + B: linear where both are, affine where both are that, else a plain operator.

    Multiples of one operator become one multiple, which stays on its rung: A + A is 2 A.
    Raises InvdiffError when B is no operator, and when all cancels.
    """
    B = _operator(B)
    offsets = [C.offset for C in (A, B) if isinstance(C, Affine)]
    parts = [C.linear if isinstance(C, Affine) else C for C in (A, B)]
    if not offsets or not all(isinstance(C, Linear) for C in parts):
        return _sum([A, B])
    total = _sum(parts)
    assert isinstance(total, Linear)
    return Affine(total, sum(offsets[1:], start=offsets[0]))


def _sum(parts: list[Operator]) -> Operator:
    """The sum of operators, multiples of one operator joined."""
    terms = [t for C in parts for t in (C.terms if isinstance(C, Summed | SummedLinear) else (C,))]
    bases: list[Operator] = []
    factors: list[float] = []
    for term in terms:
        base, factor = (term.base, term.scale) if isinstance(term, SCALED) else (term, 1.0)
        both = isinstance(base, Identity)
        known = (k for k, C in enumerate(bases) if C is base or (both and isinstance(C, Identity)))
        place = next(known, len(bases))
        if place == len(bases):
            bases.append(base)
            factors.append(0.0)
        factors[place] += factor
    left = [scaled(C, c) for C, c in zip(bases, factors, strict=True) if c != 0]
    if not left:
        raise InvdiffError("The operators of this sum cancel, so that it measures nothing.")
    if len(left) == 1:
        return left[0]
    linear = tuple(C for C in left if isinstance(C, Linear))
    return SummedLinear(linear) if len(linear) == len(left) else Summed(tuple(left))
