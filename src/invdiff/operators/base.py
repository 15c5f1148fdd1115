"""The ladder of operators: Operator, PseudoInvertible, Linear, Spectral; and how they compose.

Every operator is a frozen dataclass over image shapes, batch first. What a rung promises:

  Operator           A(x), vjp(x, v)                   any differentiable map
  PseudoInvertible   pinv(y)                           A(A^+(A(x))) = A(x), linear or not
  Linear             adjoint(y), solve(b, shift)       conjugate gradients unless overridden
  Spectral           s, V(c), Vt(x), U(c), Ut(y)       A = U s Vt in closed form
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.admit import admit, narrower
from invdiff.operators.krylov import conjugate_gradients, least_squares


@dataclass(frozen=True, eq=False)
class Operator:
    """A map from images (B, *x_shape) to measurements (B, *y_shape).

    batched: names of the tensor fields whose first axis is the batch (or 1, shared by all rows).
    differentiable: False where no gradient passes (real JPEG, quantisation).
    """

    batched: ClassVar[tuple[str, ...]] = ()
    differentiable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        admit(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a `__post_init__` of the subclass find fields that are what they are annotated as."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("__post_init__")
        if own is not None:

            @functools.wraps(own)
            def admitting(self: Operator) -> None:
                try:
                    admit(self)
                except InvdiffError as error:
                    raise narrower(error, lambda: own(self)) from None
                own(self)

            cls.__post_init__ = admitting  # type: ignore[method-assign]

    def __call__(self, x: Tensor) -> Tensor:
        """A(x)."""
        raise NotImplementedError

    @staticmethod
    def from_function(
        function: Callable[..., Any],
        vjp: Callable[..., Any] | None = None,
        differentiable: bool = True,
        numpy: bool = False,
    ) -> Operator:
        """y = function(x), any function of the user's own; its gradient by automatic
        differentiation, unless `vjp` is given.

        function: from a batch of images (B, *x_shape) to a batch of measurements, row by row;
        with numpy = True, from the numpy array of one image to that of one measurement.
        vjp(x, v): (dA/dx)^T v, of the same kind of arrays; a function of numpy has no other.
        differentiable: False where no gradient passes.
        """
        from invdiff.operators.custom import FromFunction

        return FromFunction(function, vjp, differentiable, numpy)

    @staticmethod
    def from_deepinv(physics: Any, x_shape: tuple[int, ...], check: bool = True) -> Operator:
        """The operator of a deepinv `Physics`: Linear of a `LinearPhysics`, with its A_adjoint.

        x_shape: of one image. check: the dot test, in float32. The noise model of the physics is
        not taken: give a `Problem` its own. Where an operator of invdiff does the same, it offers
        more: deepinv's decompositions and pseudo-inverses are not used. A copy of the physics is
        kept for each precision and device.
        Raises InvdiffError when it is no Physics, the dot test fails or deepinv is not there.
        """
        from invdiff.operators.adapters import from_deepinv

        return from_deepinv(physics, x_shape, check)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """(dA/dx)^T v at x; shapes of x, of A(x), result like x. By automatic differentiation.

        Raises InvdiffError where the operator is not differentiable.
        """
        if not self.differentiable:
            raise InvdiffError(
                f"No gradient passes through {type(self).__name__}; take a solver that needs none."
            )
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x), x, v)[0]

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one measurement of an image of shape x_shape, both without the batch axis.

        Raises InvdiffError when images of this shape do not fit the operator.
        """
        return tuple(self(torch.zeros(1, *x_shape)).shape[1:])

    def restrict(self, y: Tensor) -> Tensor:
        """y with the entries that were never measured set to zero."""
        return y

    def rows(self, index: Tensor) -> Self:
        """The operator of the batch rows index (rows may repeat)."""
        return self._map(
            lambda name, t: t[index] if name in self.batched and t.shape[0] > 1 else t,
            lambda op: op.rows(index),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The operator with its tensors on another device; real floating ones in dtype if given."""

        def move(_: str, t: Tensor) -> Tensor:
            return t.to(device, dtype if dtype and t.is_floating_point() else t.dtype)

        return self._map(move, lambda op: op.to(device, dtype))

    def __matmul__(self, inner: Operator) -> Operator:
        """self after inner."""
        from invdiff.operators.algebra import compose

        return compose(self, inner)

    def _map(
        self, tensor: Callable[[str, Tensor], Tensor], operator: Callable[[Operator], Operator]
    ) -> Self:
        changes: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changes[f.name] = tensor(f.name, value)
            elif isinstance(value, Operator):
                changes[f.name] = operator(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Operator):
                parts = tuple(operator(v) for v in value)
                same = all(a is b for a, b in zip(parts, value, strict=True))
                changes[f.name] = value if same else parts
        new = any(value is not getattr(self, name) for name, value in changes.items())
        return dataclasses.replace(self, **changes) if new else self

    def _as(self, name: str, like: Tensor) -> Tensor:
        """The real tensor attribute `name` in the precision and on the device of like, kept."""
        casts = self.__dict__.setdefault("_casts", {})
        key = (name, like.dtype, like.device)
        if key not in casts:
            value = getattr(self, name)
            dtype = like.real.dtype if like.is_complex() else like.dtype
            if value.is_complex():
                dtype = dtype.to_complex()
            casts[key] = value.to(like.device, dtype)
        kept: Tensor = casts[key]
        return kept


@dataclass(frozen=True, eq=False)
class PseudoInvertible(Operator):
    """An operator h, linear or not, with a generalised inverse: h(h^+(h(x))) = h(x) for all x."""

    def pinv(self, y: Tensor) -> Tensor:
        """h^+(y): an image for a measurement, (B, *x_shape)."""
        raise NotImplementedError

    def pinv_residual(self, y: Tensor, x: Tensor) -> Tensor:
        """h^+(y) - h^+(h(x)): what x lacks, in the image's shape; 0 where h(x) = y."""
        return self.pinv(y) - self.pinv(self(x))

    def consistent(self, x_shape: tuple[int, ...]) -> bool:
        """Whether h(h^+(h(x))) = h(x) is known to hold for images of x_shape."""
        return True

    def onto(self, x_shape: tuple[int, ...]) -> bool:
        """Whether h(h^+(y)) = y is known to hold for every y; x_shape as in `y_shape`."""
        return False

    def one_to_one(self, x_shape: tuple[int, ...]) -> bool:
        """Whether h^+(h(x)) = x is known to hold for every x of x_shape."""
        return False


@dataclass(frozen=True, eq=False)
class Linear(PseudoInvertible):
    """An operator with an adjoint."""

    @staticmethod
    def from_functions(
        forward: Callable[..., Any],
        adjoint: Callable[..., Any],
        x_shape: tuple[int, ...],
        numpy: bool = False,
        tol: float | None = None,
        dtype: torch.dtype = torch.float64,
        check: bool = True,
    ) -> Linear:
        """y = forward(x) with its adjoint, two functions of the user's own.

        Both take and return batches of tensors, (B, *x_shape) and (B, *y_shape); with numpy = True
        the numpy array of one image or measurement. Images are real, measurements may be complex.
        check: compare the two by `dot_test` in dtype, which may differ by tol; None is the root of
        the round-off, 1.5e-8 in float64 and 3.5e-4 in float32.
        Raises InvdiffError with the gap that was found when adjoint is not the adjoint.
        """
        from invdiff.operators.custom import from_functions

        return from_functions(forward, adjoint, x_shape, numpy, tol, dtype, check)

    @staticmethod
    def from_matrix(
        matrix: Any,
        x_shape: tuple[int, ...],
        y_shape: tuple[int, ...] | None = None,
        decompose: bool | None = None,
    ) -> Linear:
        """y = matrix x of the flattened image; see `operators.matrix.from_matrix`."""
        from invdiff.operators.matrix import from_matrix

        return from_matrix(matrix, x_shape, y_shape, decompose)

    @staticmethod
    def from_scipy(
        operator: Any,
        x_shape: tuple[int, ...],
        y_shape: tuple[int, ...] | None = None,
        check: bool = True,
    ) -> Linear:
        """y = operator x of the flattened image, of a `scipy.sparse.linalg.LinearOperator`, or of
        anything with shape, matvec and rmatvec (PyLops). It runs in numpy, on the CPU.

        y_shape: of one measurement, (m,) when None. check: the dot test in float64.
        Raises InvdiffError when shapes do not fit, rmatvec is missing, or it is not the adjoint.
        """
        from invdiff.operators.adapters import from_scipy

        return from_scipy(operator, x_shape, y_shape, check)

    @property
    def cg_iterations(self) -> int:
        """Bound on the iterations of the default solve and pinv."""
        return 200

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y (A^H y where complex): <A x, y> = <x, A^T y>."""
        raise NotImplementedError

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.adjoint(v)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        """(A^T A + shift)^-1 b for shift > 0; b and result have the shape of an image."""
        return conjugate_gradients(
            lambda x: self.adjoint(self(x)) + shift * x, b, self.cg_iterations
        )

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        """(A^T A + shift)^-1 A^T y for shift > 0, an image; A^+ y as shift falls to 0.

        Not solve(adjoint(y)) where more is known: round-off in the null space of A, which solve
        divides by shift, never arises.
        """
        return self.solve(self.adjoint(y), shift)

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y: the shortest least-squares solution, by `least_squares`."""
        return least_squares(self, y, self.cg_iterations)

    def pinv_residual(self, y: Tensor, x: Tensor) -> Tensor:
        """A^+ (y - A x)."""
        return self.pinv(y - self(x))


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
        casts = self.__dict__.setdefault("_casts", {})
        key = ("spectrum", like.dtype, like.device)
        if key not in casts:
            s = self.s
            cut = s.max() * torch.finfo(like.dtype).eps * max(s.shape)
            casts[key] = torch.where(s > cut, s, 0.0).to(like.device, like.dtype.to_real())
        kept: Tensor = casts[key]
        return kept

    def inverse_spectrum(self, like: Tensor) -> Tensor:
        """1 / s, and 0 where s is numerically zero: the singular values of A^+."""
        casts = self.__dict__.setdefault("_casts", {})
        key = ("inverse", like.dtype, like.device)
        if key not in casts:
            s = self.spectrum(like)
            casts[key] = torch.where(s > 0, 1 / torch.where(s > 0, s, 1.0), 0.0)
        kept: Tensor = casts[key]
        return kept

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


@dataclass(frozen=True, eq=False)
class Identity(Spectral):
    """y = x: denoising."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    @property
    def s(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)

    def V(self, c: Tensor) -> Tensor:
        return c

    def Vt(self, x: Tensor) -> Tensor:
        return x

    def U(self, c: Tensor) -> Tensor:
        return c

    def Ut(self, y: Tensor) -> Tensor:
        return y
