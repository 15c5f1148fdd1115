"""Problem and Case. No algorithms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from invdiff.core import InvdiffError, brief
from invdiff.core.arguments import admit
from invdiff.noise.base import Noise
from invdiff.operators.algebra import Operator

if TYPE_CHECKING:
    from invdiff.noise import Poisson
    from invdiff.operators.algebra import Linear, PseudoInvertible, Spectral
    from invdiff.operators.algebra.decoded import Decoded
    from invdiff.operators.jpeg import JPEG

KNOWN = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""Numbers that measurements are made of."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement y = A(x0) + noise. It never holds the truth.

    y: measurement, batch first, shape (M, ...), M >= 1, in the units of A's output; float32 or
    float64, complex where A's output is. NumPy arrays and nested lists are taken too.
    A: operator that maps images (M, *x_shape) to the shape of y.
    noise: what was added to A(x0).
    x_shape: shape of one image without the batch axis, for example (3, 256, 256).
    Raises InvdiffError for anything else: y that holds NaN or infinities, or does not have the
    shape of A(x), and parts that are no operator, noise or shape.
    """

    y: Tensor = field(metadata={"infinite": True})  # NaN may stand where nothing was measured
    A: Operator
    noise: Noise
    x_shape: tuple[int, ...]

    def __repr__(self) -> str:
        return brief(self)

    def __post_init__(self) -> None:
        admit(self)
        self._check_numbers()
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

    def _check_numbers(self) -> None:
        """Raise InvdiffError for a batch of none, and for numbers that no operator gives."""
        if self.y.ndim < 1 or len(self.y) == 0:
            raise InvdiffError(
                f"A problem needs at least 1 measurement, batch first, found y of shape "
                f"{tuple(self.y.shape)}."
            )
        if self.y.dtype not in KNOWN:
            kind = str(self.y.dtype).removeprefix("torch.")
            raise InvdiffError(
                f"A measurement holds floating or complex numbers of 32 or 64 bits a part, found "
                f"{kind}; give y.float(), in the units of the operator's output."
            )
        if self.y.is_complex() and not self._complex():
            raise InvdiffError(
                f"{type(self.A).__name__} measures real numbers, but y is complex; give y.real."
            )

    def _complex(self) -> bool:
        """Whether A measures complex numbers, which it is asked once."""
        known = vars(self.A)
        if "_complex" not in known:
            zeros = torch.zeros(1, *self.x_shape, dtype=self.y.real.dtype, device=self.y.device)
            known["_complex"] = self.A(zeros).is_complex()
        return bool(known["_complex"])

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
