"""Operators that are given as a matrix: dense, decomposed where it is small, or sparse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra import Linear, Spectral
from invdiff.operators.algebra.sparse import Csr, product, sparse_pair, transposed

SMALL = 4096
"""Numbers of an image up to which `from_matrix` decomposes: V then takes 128 MiB in float64."""


def from_matrix(
    matrix: Any,
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...] | None = None,
    decompose: bool | None = None,
) -> Linear:
    """y = matrix x of the flattened image, on the highest rung that its size allows.

    matrix: (m, n), a tensor, an array, or a sparse matrix of SciPy. x_shape: of one image, n
    numbers. y_shape: of one measurement, m numbers; (m,) when None. decompose: whether to take the
    singular values of a dense real matrix; None does it for images of up to `SMALL` numbers and
    measurements of up to four times as many.
    Raises InvdiffError when the shapes do not fit, or the matrix is not finite.
    """
    objects = isinstance(matrix, np.ndarray) and matrix.dtype.kind not in "biufc"
    if isinstance(matrix, list | tuple) or objects:
        raise InvdiffError("A matrix is an array of numbers; give np.array(matrix, float).")
    if len(getattr(matrix, "shape", ())) != 2:
        raise InvdiffError(
            f"A matrix has two axes, found {getattr(matrix, 'shape', type(matrix).__name__)}."
        )
    shape_y = (int(matrix.shape[0]),) if y_shape is None else tuple(y_shape)
    if isinstance(matrix, np.ndarray | Tensor):
        dense = torch.as_tensor(matrix)
        small = dense.shape[-1] <= SMALL and dense.shape[0] <= 4 * SMALL
        if decompose or (decompose is None and small and not dense.is_complex()):
            return Matrix(dense, tuple(x_shape), shape_y)
        return MatrixProduct(dense, tuple(x_shape), shape_y)
    if decompose:
        raise InvdiffError(
            "A sparse matrix is not decomposed; give matrix.toarray() if it is small."
        )
    return SparseMatrix.from_csr(matrix, tuple(x_shape), shape_y)


def _check(shape: tuple[int, ...], x_shape: tuple[int, ...], shape_y: tuple[int, ...]) -> None:
    """Raise InvdiffError unless a matrix of `shape` maps x_shape to shape_y."""
    if len(shape) != 2 or shape != (math.prod(shape_y), math.prod(x_shape)):
        raise InvdiffError(
            f"A matrix from images {x_shape} to measurements {shape_y} is "
            f"{math.prod(shape_y)} x {math.prod(x_shape)}, found {' x '.join(map(str, shape))}."
        )


def _y_shape(A: Matrix | MatrixProduct | SparseMatrix, x_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of y, or InvdiffError for images of another shape than A's."""
    if tuple(x_shape) != A.x_shape:
        raise InvdiffError(f"The matrix is for images {A.x_shape}, found {tuple(x_shape)}.")
    return A.shape_y


@dataclass(frozen=True, eq=False)
class Matrix(Spectral):
    """y = matrix x, dense and real, with the decomposition of all of it, in float64.

    matrix: (m, n). x_shape, shape_y: of one image and one measurement, n and m numbers.
    The decomposition is taken when first used: n^2 + m min(m, n) numbers, and the time of an SVD;
    `MatrixProduct` needs neither.
    """

    matrix: Tensor
    x_shape: tuple[int, ...]
    shape_y: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(tuple(self.matrix.shape), self.x_shape, self.shape_y)
        if self.matrix.is_complex():
            raise InvdiffError("A complex matrix has no real decomposition; take MatrixProduct.")

    y_shape = _y_shape

    def __call__(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self._as("matrix", x).mT).reshape(-1, *self.shape_y)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self._as("matrix", y)).reshape(-1, *self.x_shape)

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        m, n = self.matrix.shape
        U, s, Vt = torch.linalg.svd(self.matrix.double(), full_matrices=m < n)
        return U, F.pad(s, (0, n - len(s))), Vt

    @property
    def left(self) -> Tensor:
        """U, (m, min(m, n))."""
        return self._svd[0]

    @property
    def right(self) -> Tensor:
        """V^T, (n, n)."""
        return self._svd[2]

    @property
    def s(self) -> Tensor:
        return self._svd[1]

    def V(self, c: Tensor) -> Tensor:
        return (c @ self._as("right", c)).reshape(-1, *self.x_shape)

    def Vt(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self._as("right", x).mT

    def U(self, c: Tensor) -> Tensor:
        left = self._as("left", c)
        return (c[:, : left.shape[1]] @ left.mT).reshape(-1, *self.shape_y)

    def Ut(self, y: Tensor) -> Tensor:
        c = y.flatten(1) @ self._as("left", y)
        return F.pad(c, (0, len(self.s) - c.shape[1]))


@dataclass(frozen=True, eq=False)
class MatrixProduct(Linear):
    """y = matrix x, dense, real or complex, without a decomposition.

    matrix: (m, n). x_shape, shape_y: of one image and one measurement, n and m numbers. Images are
    real; of a complex matrix the measurement is complex and the adjoint is the real part.
    """

    matrix: Tensor
    x_shape: tuple[int, ...]
    shape_y: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(tuple(self.matrix.shape), self.x_shape, self.shape_y)

    y_shape = _y_shape

    def __call__(self, x: Tensor) -> Tensor:
        M = self._as("matrix", x)
        return (x.flatten(1).to(M.dtype) @ M.mT).reshape(-1, *self.shape_y)

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.flatten(1) @ self._as("matrix", y).conj()
        return (x.real if x.is_complex() else x).reshape(-1, *self.x_shape)


def _fit(ends: Tensor, places: Tensor, n: int) -> bool:
    """Whether rows that end there hold all entries, at places of n columns."""
    if ends.is_meta:
        return True
    rising = int(ends[0]) == 0 and int(ends[-1]) == len(places) and bool((ends.diff() >= 0).all())
    return rising and (not len(places) or (int(places.min()) >= 0 and int(places.max()) < n))


@dataclass(frozen=True, eq=False)
class SparseMatrix(Linear):
    """y = M x of a sparse real matrix, kept with its transpose in compressed rows.

    pointers, columns, values: of the rows of M, as in SciPy's CSR. x_shape, shape_y: of one image
    and one measurement. `from_csr` takes any sparse matrix of SciPy.
    """

    pointers: Tensor
    columns: Tensor
    values: Tensor
    x_shape: tuple[int, ...]
    shape_y: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.values.is_complex():
            raise InvdiffError(
                "A sparse matrix of complex numbers is taken by Linear.from_scipy, as a "
                "scipy.sparse.linalg.aslinearoperator."
            )
        m, n = math.prod(self.shape_y), math.prod(self.x_shape)
        ends, places = self.pointers, self.columns
        whole = not any(t.is_floating_point() or t.is_complex() for t in (ends, places))
        flat = ends.ndim == places.ndim == self.values.ndim == 1 and len(ends) == m + 1
        if not (whole and flat and len(places) == len(self.values) and _fit(ends, places, n)):
            raise InvdiffError(
                f"Compressed rows of a matrix of {m} x {n} have {m + 1} pointers that rise from 0 "
                f"to the number of values, and a column below {n} for each value; these are no "
                "such rows, so make them by SparseMatrix.from_csr."
            )

    @classmethod
    def from_csr(
        cls, matrix: Any, x_shape: tuple[int, ...], shape_y: tuple[int, ...]
    ) -> SparseMatrix:
        """From a sparse matrix of SciPy, of any format."""
        if not callable(getattr(matrix, "tocsr", None)):
            raise InvdiffError(
                "A matrix is a tensor, a NumPy array or a sparse matrix of SciPy, found "
                f"{type(matrix).__name__}."
            )
        _check(tuple(matrix.shape), x_shape, shape_y)
        csr = matrix.tocsr()
        if csr.nnz >= 2**31:
            raise InvdiffError(f"{csr.nnz} entries are beyond 32-bit indices; split the matrix.")
        pointers, columns = (
            torch.tensor(np.asarray(a, np.int32)) for a in (csr.indptr, csr.indices)
        )
        values = torch.tensor(np.asarray(csr.data, np.result_type(csr.dtype, np.float32)))
        return cls(pointers, columns, values, x_shape, shape_y)

    y_shape = _y_shape

    def __call__(self, x: Tensor) -> Tensor:
        return product(x.flatten(1), *self._pair(x)).reshape(-1, *self.shape_y)

    def adjoint(self, y: Tensor) -> Tensor:
        forward, back = self._pair(y)
        return product(y.flatten(1), back, forward).reshape(-1, *self.x_shape)

    def _pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """M and its transpose in the precision and on the device of like."""

        def made() -> tuple[Tensor, Tensor]:
            n = math.prod(self.shape_y), math.prod(self.x_shape)
            forward: Csr = (self.pointers, self.columns, self.values.to(like.dtype))
            return sparse_pair(forward, transposed(forward, n[1]), n, like.device)

        return self._once("pair", like, made)
