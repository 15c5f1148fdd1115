"""The middle rungs: operators with a generalised inverse, and those with an adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
from torch import Tensor

from invdiff.operators.algebra.krylov import (
    conjugate_gradients,
    largest_singular_value,
    least_squares,
)
from invdiff.operators.algebra.operator import Operator


@dataclass(frozen=True, eq=False)
class PseudoInvertible(Operator):
    """An operator h, linear or not, with a generalised inverse: h(h^+(h(x))) = h(x) for all x."""

    guesses: ClassVar[bool] = True

    def guess(self, y: Tensor, x_shape: tuple[int, ...]) -> Tensor:
        """h^+(y)."""
        return self.pinv(y)

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

    def _scaled(self, scale: float) -> Operator:
        from invdiff.operators.algebra.scaling import ScaledPseudoInvertible

        return ScaledPseudoInvertible(self, scale)


@dataclass(frozen=True)
class Compact:
    """A = U A' with U^H U = 1, where A' x has fewer numbers than A x or costs less.

    forward, adjoint: x to A' x, and its adjoint. to, back: y to U^H y, and y' to U y'. With them
    (s I + A V A^H)^-1 r = U (s I + A' V A'^H)^-1 U^H r for every r that was measured.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    to: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Linear(PseudoInvertible):
    """An operator with an adjoint."""

    if TYPE_CHECKING:  # of a linear operator they are linear

        def __mul__(self, scale: float) -> Linear: ...
        def __rmul__(self, scale: float) -> Linear: ...
        def __neg__(self) -> Linear: ...
        def __truediv__(self, divisor: float) -> Linear: ...

        @overload
        def __add__(self, other: Linear) -> Linear: ...
        @overload
        def __add__(self, other: Operator) -> Operator: ...
        def __add__(self, other: Operator) -> Operator: ...
        @overload
        def __sub__(self, other: Linear) -> Linear: ...
        @overload
        def __sub__(self, other: Operator) -> Operator: ...
        def __sub__(self, other: Operator) -> Operator: ...

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
        from invdiff.operators.given.functions import from_functions

        return from_functions(forward, adjoint, x_shape, numpy, tol, dtype, check)

    @staticmethod
    def from_matrix(
        matrix: Any,
        x_shape: tuple[int, ...],
        y_shape: tuple[int, ...] | None = None,
        decompose: bool | None = None,
    ) -> Linear:
        """y = matrix x of the flattened image; see `operators.given.matrix.from_matrix`."""
        from invdiff.operators.given.matrix import from_matrix

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
        from invdiff.operators.given.adapters import from_scipy

        return from_scipy(operator, x_shape, y_shape, check)

    @property
    def cg_iterations(self) -> int:
        """Bound on the iterations of the default solve and pinv."""
        return 200

    @property
    def cg_tol(self) -> float:
        """Where the default solve stops: residual over the right side; 0 is round-off."""
        return 1e-3

    def preconditioner(self, like: Tensor, shift: float) -> Callable[[Tensor], Tensor] | None:
        """An approximation of (A^T A + shift)^-1 for images of the shape of like, symmetric and
        positive definite, with which the default solve needs fewer iterations; None for none."""
        return None

    def compact(self, like: Tensor) -> Compact | None:
        """The same measurement in fewer numbers, in the precision and on the device of a y; None
        where A tells none."""
        return None

    def cosine_power(self, variance: Tensor) -> Tensor | None:
        """Variances of the cosine modes (DCT-II) of A x, (..., h, w), of an x whose cosine modes
        are independent with these variances, (..., H, W); exact or nearly so.

        None where y is no image, or where that says little of A. It preconditions (`normal.py`).
        """
        return None

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y (A^H y where complex): <A x, y> = <x, A^T y>."""
        raise NotImplementedError

    @property
    def T(self) -> Linear:
        """The adjoint as an operator from measurements to images; `A.T.T` is A.

        Where the measurement of A is complex, the images of `A.T` are, and only a composition such
        as `A.T @ A` is of real images.
        """
        from invdiff.operators.algebra.transposed import Transposed

        return Transposed(self)

    def norm(self, x_shape: tuple[int, ...] | None = None, tol: float = 1e-4) -> float:
        """The largest singular value, |A x| <= norm |x|: of all rows of a batch, the largest.

        Exact where singular values are known (`Spectral`), else by the Lanczos method from fixed
        noise, from below: see `krylov.largest_singular_value`. `A / A.norm()` has norm 1.
        x_shape: of one image; None takes what the operator tells of it (`image_shape`), with one
        channel if that fits. tol: relative, above 0 and below 1.
        Raises InvdiffError where x_shape is needed or does not fit, and where A is not finite.
        """
        from invdiff.operators.algebra.shapes import fitting_shape

        return largest_singular_value(self, fitting_shape(self, x_shape), self.batch_rows, tol)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.adjoint(v)

    def solve(self, b: Tensor, shift: float) -> Tensor:
        """(A^T A + shift)^-1 b for shift > 0; b and result have the shape of an image.

        By conjugate gradients until `cg_tol`, in at most `cg_iterations`.
        """
        return self.iterated(b, shift)

    def iterates(self, like: Tensor) -> bool:
        """Whether `solve` is `iterated`, of images of the shape, precision and device of like."""
        return type(self).solve is Linear.solve and type(self).ridge is Linear.ridge

    def iterated(self, b: Tensor, shift: float, enough: float = 0.0) -> Tensor:
        """What the default solve does.

        enough: residual at which it stops, in root mean square; 0 takes `cg_tol` of the right side.
        """
        return conjugate_gradients(
            lambda x: self.adjoint(self(x)) + shift * x,
            b,
            self.cg_iterations,
            0.0 if enough else self.cg_tol,
            enough=enough,
            precondition=self.preconditioner(b, shift),
        )

    def ridge(self, y: Tensor, shift: float) -> Tensor:
        """(A^T A + shift)^-1 A^T y for shift > 0, an image; A^+ y as shift falls to 0.

        Not solve(adjoint(y)) where more is known: round-off in the null space of A, which solve
        divides by shift, never arises.
        """
        return self.solve(self.adjoint(y), shift)

    def proximal(self, x: Tensor, y: Tensor, shift: float, sigma: float = 0.0) -> Tensor:
        """The image z of least |y - A z|^2 + shift |z - x|^2, for shift > 0: x + ridge(y - A x).

        sigma: for noise of this deviation z is the mean of N(z, sigma^2 (A^T A + shift)^-1). A
        residual g leaves the error g_i / (s_i^2 + shift) in the direction of a singular value s_i,
        whose deviation is sigma / (s_i^2 + shift)^(1/2). So an iterative solve ends where the root
        mean square of g is sigma shift^(1/2): then that of errors over deviations is 1 at most.
        0 ends it at `cg_tol` of the right side, which may be far too early where sigma is small:
        A z then misses y by many times the noise.
        """
        r = y - self(x)
        if not sigma or not self.iterates(x):
            return x + self.ridge(r, shift)
        return x + self.iterated(self.adjoint(r), shift, sigma * math.sqrt(shift))

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y: the shortest least-squares solution, by `least_squares`."""
        return least_squares(self, y, self.cg_iterations)

    def pinv_residual(self, y: Tensor, x: Tensor) -> Tensor:
        """A^+ (y - A x)."""
        return self.pinv(y - self(x))

    def _scaled(self, scale: float) -> Operator:
        from invdiff.operators.algebra.scaling import Scaled

        return Scaled(self, scale)
