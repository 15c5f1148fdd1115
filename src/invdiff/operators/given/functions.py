"""Operators of the user's own, from functions of torch or numpy; and the dot test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invdiff.core import InvdiffError, batch_dot, batch_norm
from invdiff.core.rng import Rng
from invdiff.operators.algebra import Linear, Operator

Map = Callable[..., Any]
"""A function of the user's: of tensors (B, ...), or of the numpy array of one image."""

NO_GRADIENT = ("requires grad", "does not require grad", "to not have been used in the graph")
"""What torch says of a function that no gradient passes through."""


def dot_test(
    A: Operator, x_shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> float:
    """How far A.adjoint is from the adjoint: |<A x, v> - <x, A^T v>| / max(|A x| |v|, |x| |A^T v|).

    x is white noise of x_shape, v half A x and half white noise, so that a wrong scale shows in
    full; of two such pairs the larger gap counts. An adjoint gives round-off: some 1e-16 in
    float64, 1e-7 in float32. Raises InvdiffError for an operator that is not Linear.
    """
    if not isinstance(A, Linear):
        raise InvdiffError(f"{type(A).__name__} has no adjoint to test, as it is not linear.")
    A, rng = A.rows(torch.tensor([0, 0])), Rng.of((seed, seed + 1))
    x = rng.normal(torch.empty(2, *x_shape, dtype=dtype), "x")
    z = A(x)
    real = torch.view_as_real(z.resolve_conj()) if z.is_complex() else z
    w = rng.normal(real, "w")
    w = torch.view_as_complex(w.contiguous()) if z.is_complex() else w
    norm = batch_norm(z)
    v = z / torch.where(norm > 0, norm, 1.0) + w / batch_norm(w)
    back = A.adjoint(v)
    gap = (batch_dot(z, v).flatten() - batch_dot(x, back).flatten()).abs()
    ahead, behind = (norm * batch_norm(v)).flatten(), (batch_norm(x) * batch_norm(back)).flatten()
    size = torch.maximum(ahead, behind)
    return float((gap / torch.where(size > 0, size, 1.0)).max())


class _Outside(torch.autograd.Function):
    """there(x), whose gradient is back(v)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Map, back: Map) -> Tensor:
        ctx.back = back
        return there(x.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(grads[0]), None, None


def _outside(x: Tensor, there: Map, back: Map) -> Tensor:
    out: Tensor = _Outside.apply(x, there, back)  # type: ignore[no-untyped-call]
    return out


def _through_numpy(f: Map) -> Map:
    """A function of numpy arrays of one image as a function of batches of tensors.

    It is given copies, and zeros for tensors on the meta device, which hold nothing.
    """

    def array(t: Tensor) -> np.ndarray:
        t = torch.zeros_like(t, device="cpu") if t.is_meta else t.detach().cpu()
        return t.resolve_conj().numpy()

    def of_tensors(*batches: Tensor) -> Tensor:
        rows = zip(*map(array, batches), strict=True)
        found = np.stack([np.asarray(f(*(row.copy() for row in each))) for each in rows])
        if found.dtype.kind not in "biufc":
            raise InvdiffError(
                f"A function of numpy returned {found.dtype}; it must return an array of numbers."
            )
        return torch.from_numpy(found).to(batches[0].device)

    return of_tensors


def _checked(z: Any, name: str, x: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """z in the precision of x. Raises InvdiffError unless it is a batch (of arrays of shape)."""
    if not isinstance(z, Tensor):
        raise InvdiffError(f"{name} returned {type(z).__name__}; it must return a tensor.")
    if z.ndim == 0 or len(z) != len(x):
        raise InvdiffError(
            f"{name} made {tuple(z.shape)} of {tuple(x.shape)}; it must take a batch and return a "
            "batch, row by row."
        )
    if shape is not None and tuple(z.shape[1:]) != shape:
        raise InvdiffError(
            f"{name} made an array of {tuple(z.shape[1:])} from one of {tuple(x.shape[1:])}, where "
            f"{shape} is needed."
        )
    dtype = x.dtype.to_real()
    return z.to(dtype.to_complex() if z.is_complex() else dtype)


@dataclass(frozen=True, eq=False)
class FromFunction(Operator):
    """y = function(x): any map; made by `Operator.from_function`, which see."""

    function: Map = field(repr=False)
    gradient: Map | None = field(default=None, repr=False)
    smooth: bool = True
    numpy: bool = False

    def __post_init__(self) -> None:
        smooth = self.gradient is not None or (self.smooth and not self.numpy)
        object.__setattr__(self, "differentiable", smooth)

    def _run(self, f: Map, *batches: Tensor) -> Any:
        return (_through_numpy(f) if self.numpy else f)(*batches)

    def __call__(self, x: Tensor) -> Tensor:
        if self.gradient is None:
            return _checked(self._run(self.function, x), "The function", x)
        kept = x.detach()
        return _outside(
            x,
            lambda x: _checked(self._run(self.function, x), "The function", x),
            lambda v: self.vjp(kept, v),
        )

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self(torch.zeros(2, *x_shape)).shape[1:])  # two rows show what mixes them

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        if self.gradient is not None:
            return _checked(self._run(self.gradient, x, v), "vjp", x, tuple(x.shape[1:]))
        try:
            return super().vjp(x, v)
        except RuntimeError as error:
            if not any(words in str(error) for words in NO_GRADIENT):
                raise
            raise InvdiffError(
                "No gradient passes through the function (numpy within it, or a detached tensor); "
                "write it in torch, give its vjp, or say differentiable=False."
            ) from error


@dataclass(frozen=True, eq=False)
class FromFunctions(Linear):
    """y = forward(x) and its adjoint; made by `Linear.from_functions`, which see."""

    forward: Map = field(repr=False)
    backward: Map = field(repr=False)
    x_shape: tuple[int, ...]
    shape_y: tuple[int, ...]
    numpy: bool = False

    def _run(self, f: Map, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        z = (_through_numpy(f) if self.numpy else f)(x)
        return _checked(z, name, x, shape)

    def _there(self, x: Tensor) -> Tensor:
        return self._run(self.forward, "The forward function", x, self.shape_y)

    def _back(self, y: Tensor) -> Tensor:
        x = self._run(self.backward, "The adjoint function", y, self.x_shape)
        if x.is_complex():
            raise InvdiffError(
                "The adjoint function returned complex numbers, and images are real: return the "
                "real part, or the real and the imaginary part as two channels."
            )
        return x

    def __call__(self, x: Tensor) -> Tensor:
        return _outside(x, self._there, self.adjoint)

    def adjoint(self, y: Tensor) -> Tensor:
        return _outside(y, self._back, self.__call__)

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(x_shape) != self.x_shape:
            raise InvdiffError(
                f"The functions are for images {self.x_shape}, found {tuple(x_shape)}."
            )
        return self.shape_y


def from_functions(
    forward: Map,
    adjoint: Map,
    x_shape: tuple[int, ...],
    numpy: bool = False,
    tol: float | None = None,
    dtype: torch.dtype = torch.float64,
    check: bool = True,
) -> FromFunctions:
    """See `Linear.from_functions`."""
    x_shape = tuple(x_shape)
    x = torch.zeros(2, *x_shape, dtype=dtype)
    z = _checked((_through_numpy(forward) if numpy else forward)(x), "The forward function", x)
    A = FromFunctions(forward, adjoint, x_shape, tuple(z.shape[1:]), numpy)
    if check:
        gap, tol = dot_test(A, x_shape, dtype), tol or torch.finfo(dtype).eps ** 0.5
        if not gap <= tol:
            raise InvdiffError(
                f"The adjoint is not that of the forward function: <A x, v> and <x, A^T v> differ "
                f"by {gap:.1e} of their size, more than {tol:.1e}; an offset in the forward "
                "function belongs into affine()."
            )
    return A
