"""Problem and Case. No algorithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from invdiff.core import InvdiffError, brief

if TYPE_CHECKING:
    from invdiff.noise import Noise, Poisson
    from invdiff.operators.algebra import Linear, Operator, PseudoInvertible, Spectral
    from invdiff.operators.algebra.decoded import Decoded
    from invdiff.operators.jpeg import JPEG


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement y = A(x0) + noise. It never holds the truth.

    y: measurement, batch first, shape (M, ...), in the units of A's output.
    A: operator that maps images (M, *x_shape) to the shape of y.
    noise: what was added to A(x0).
    x_shape: shape of one image without the batch axis, for example (3, 256, 256).
    Raises InvdiffError when y holds NaN or infinities, or does not have the shape of A(x).
    """

    y: Tensor
    A: Operator
    noise: Noise
    x_shape: tuple[int, ...]

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x_shape", tuple(self.x_shape))
        expected = self.A.y_shape(self.x_shape)
        if tuple(self.y.shape[1:]) != tuple(expected):
            raise InvdiffError(
                f"The measurement has shape {tuple(self.y.shape[1:])} per image, but "
                f"{type(self.A).__name__} maps images {self.x_shape} to {tuple(expected)}; "
                "give the measurement that belongs to this operator."
            )
        y = self.noise.admit(self.A.restrict(self.y))
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise InvdiffError(
                f"The measurement holds {bad} values that are NaN or infinite; "
                "replace them, or mark them as unknown with a mask."
            )
        object.__setattr__(self, "y", y)

    @property
    def batch(self) -> int:
        """Number of measurements M."""
        return int(self.y.shape[0])

    @property
    def invertible(self) -> PseudoInvertible:
        """A, typed as PseudoInvertible: for solvers that declared GENERALISED_INVERSE or PINV."""
        return cast("PseudoInvertible", self.A)

    @property
    def latent(self) -> Decoded:
        """A, typed as Decoded: for solvers that declared AUTOENCODER, and so were checked."""
        return cast("Decoded", self.A)

    @property
    def linear(self) -> Linear:
        """A, typed as Linear: for solvers that declared LINEAR or PINV, and so were checked."""
        return cast("Linear", self.A)

    @property
    def spectral(self) -> Spectral:
        """A, typed as Spectral: for solvers that declared SVD, and so were checked."""
        return cast("Spectral", self.A)

    @property
    def jpeg(self) -> JPEG:
        """A, typed as JPEG: for solvers that declared CELLS, and so were checked."""
        return cast("JPEG", self.A)

    @property
    def sigma_y(self) -> float:
        """Standard deviation of white Gaussian noise. Raises InvdiffError for any other noise."""
        return float(self.noise.sigma_y)

    @property
    def poisson(self) -> Poisson:
        """The noise, typed as Poisson: for solvers that declared POISSON, and so were checked."""
        return cast("Poisson", self.noise)

    @property
    def x_like(self) -> Tensor:
        """An uninitialised image batch: shape, dtype and device of the unknown."""
        dtype = self.y.real.dtype if self.y.is_complex() else self.y.dtype
        return torch.empty((self.batch, *self.x_shape), dtype=dtype, device=self.y.device)

    def residual(self, x: Tensor) -> Tensor:
        """y - A(x), shape of y; zero where nothing was measured."""
        return self.y - self.A(x)

    def rows(self, index: Tensor) -> Problem:
        """The problem of the measurements index, one row each; a row may be repeated."""
        noise = self.noise.rows(index)
        return Problem(self.y[index], self.A.rows(index), noise, self.x_shape)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Problem:
        """The same problem on another device or in another real dtype."""
        y = self.y.to(device) if dtype is None else self.y.to(device, _as_complex(self.y, dtype))
        noise = self.noise.to(device, dtype)
        return Problem(y, self.A.to(device, dtype), noise, self.x_shape)


def _as_complex(y: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype.to_complex() if y.is_complex() else dtype


@dataclass(frozen=True, eq=False)
class Case:
    """A problem with its truth, for benchmarks and tests only.

    truth: images of shape (M, *problem.x_shape).
    """

    problem: Problem
    truth: Tensor

    def __repr__(self) -> str:
        return brief(self)
