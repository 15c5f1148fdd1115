"""Gaussian noise that is not white: another level in each entry, or correlated along an axis.

Solvers take it through `problem.whiten.whiten`, which divides it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise.base import Noise, parts, white


@dataclass(frozen=True, eq=False)
class Coloured(Noise):
    """y = z + L n with n ~ N(0, I): what whitening asks for.

    level: the noise that is left after whitening, a standard deviation. 0 takes the one for which
    white noise stays as it is, so that a solver's step sizes keep their meaning.
    """

    additive: ClassVar[bool] = True

    level: float = field(default=0.0, kw_only=True)

    def _settle_level(self, usual: float) -> None:
        """Take the usual level where none was given. Raises InvdiffError for one that is none."""
        if not 0 <= self.level < math.inf:
            raise InvdiffError(
                f"A level of whitened noise is a finite number of 0 or more, found {self.level}."
            )
        object.__setattr__(self, "level", self.level or usual)

    @property
    def has_density(self) -> bool:
        return True

    def colour(self, n: Tensor) -> Tensor:
        """L n, shape of y."""
        raise NotImplementedError

    def whiten(self, r: Tensor) -> Tensor:
        """L^-1 r, and 0 where nothing was measured; shape of y."""
        raise NotImplementedError

    def whiten_adjoint(self, w: Tensor) -> Tensor:
        """L^-H w, the adjoint of `whiten`."""
        raise NotImplementedError

    def log_volume(self, r: Tensor) -> Tensor:
        """log of the standard deviations of all real numbers of a sample, with sqrt(2 pi), (B,)."""
        raise NotImplementedError

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        return z + self.colour(white(z, rng))

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Per sample, shape (B,)."""
        w = parts(self.whiten(y - z)).flatten(1)
        return -0.5 * w.square().sum(1) - self.log_volume(y - z)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """Sigma^-1 (y - z)."""
        return self.whiten_adjoint(self.whiten(y - z))


@dataclass(frozen=True, eq=False)
class DiagonalGaussian(Coloured):
    """y = z + sigmas n: independent entries, each with a standard deviation of its own.

    sigmas: > 0, with as many axes as y (batch first), each of them 1 or that of y, in the units of
    y; infinity marks entries that were not measured, where y may hold anything, NaN too. For
    complex y it is that of the real part, and of the imaginary part.
    level: as in `Coloured`; its default is the root of the harmonic mean of the variances.
    Raises InvdiffError for sigmas that are 0, negative or NaN, and where a measurement has none.
    """

    sigmas: Tensor = field(metadata={"infinite": True})

    def __post_init__(self) -> None:
        s = self.sigmas
        fits = isinstance(s, Tensor) and s.ndim >= 2 and not s.is_complex()
        if not fits or not bool((s > 0).all()):
            raise InvdiffError(
                "sigmas are real numbers above 0 in an array with the axes of y, batch first, and "
                "infinite where nothing was measured; some are not."
            )
        weights = s.double().square().reciprocal()
        if not bool((weights.flatten(1).amax(1) > 0).all()):
            raise InvdiffError("All sigmas of a measurement are infinite: nothing was measured.")
        self._settle_level(float(weights[weights > 0].mean().rsqrt()))

    @classmethod
    def from_weights(cls, weights: Tensor) -> DiagonalGaussian:
        """From inverse variances, >= 0; 0 marks entries that were not measured."""
        return cls(weights.rsqrt())

    def admit(self, y: Tensor) -> Tensor:
        have, want = tuple(self.sigmas.shape), tuple(y.shape)
        if len(have) != len(want) or any(h not in (1, w) for h, w in zip(have, want, strict=True)):
            raise InvdiffError(
                f"sigmas of shape {have} do not fit a measurement of shape {want}; "
                "every axis is 1 or that of the measurement."
            )
        return torch.where(self._s(y).isfinite(), y, y.new_zeros(()))

    def _s(self, like: Tensor) -> Tensor:
        return self.sigmas.to(like.device, like.dtype.to_real())

    def colour(self, n: Tensor) -> Tensor:
        s = self._s(n)
        return torch.where(s.isfinite(), s, 0.0) * n

    def whiten(self, r: Tensor) -> Tensor:
        s = self._s(r)
        return torch.where(s.isfinite(), r / s, r.new_zeros(()))

    def whiten_adjoint(self, w: Tensor) -> Tensor:
        return self.whiten(w)

    def log_volume(self, r: Tensor) -> Tensor:
        s = self._s(r)
        log_s = torch.where(s.isfinite(), (s * math.sqrt(2 * math.pi)).log(), 0.0)
        total = log_s.expand(r.shape).flatten(1).sum(1)
        return total * (2 if r.is_complex() else 1)

    def rows(self, index: Tensor) -> Self:
        return replace(self, sigmas=self.sigmas[index]) if self.sigmas.shape[0] > 1 else self

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        return replace(self, sigmas=self.sigmas.to(device, dtype or self.sigmas.dtype))


@dataclass(frozen=True, eq=False)
class CorrelatedGaussian(Coloured):
    """y = z + n, n normal with a covariance along one axis of y (coils), independent otherwise.

    cov: (k, k), symmetric or Hermitian, positive definite; for complex y it is E[n n^H] / 2, as
    `noise_from_scan` gives it, so that sigma^2 I is GaussianNoise(sigma), whose sigma is that of
    the real part. What MRI calls the noise covariance of coils, E[n n^H], is twice that.
    axis: of y, counted with the batch (1: coils, channels); None takes all numbers of a
    measurement in their order as one axis.
    level: as in `Coloured`; its default is the root of k / trace(cov^-1).
    `whiten` makes sensitivities and k-space those of coils with independent noise of sigma 1.
    Raises InvdiffError for a matrix that is no covariance, or of another size than y's axis.
    """

    cov: Tensor
    axis: int | None = 1

    def __post_init__(self) -> None:
        c = self.cov
        fits = isinstance(c, Tensor) and (c.is_floating_point() or c.is_complex())
        if not fits or c.ndim != 2 or c.shape[0] != c.shape[1] or not bool(c.isfinite().all()):
            found = f"{tuple(c.shape)} of {c.dtype}" if isinstance(c, Tensor) else type(c).__name__
            raise InvdiffError(
                f"A covariance is a square matrix of finite numbers, a tensor, found {found}."
            )
        if self.axis is not None and self.axis < 1:
            raise InvdiffError(f"axis counts from 1, as 0 is the batch, found {self.axis}.")
        precision = torch.finfo(c.dtype).eps * len(c) * float(c.abs().max())
        exact = c.to(torch.complex128 if c.is_complex() else torch.float64)
        L, info = torch.linalg.cholesky_ex(exact)
        if float((c - c.mH).abs().max()) > precision or int(info) != 0:
            raise InvdiffError(
                "A covariance is Hermitian and positive definite, but this matrix is not; "
                "noise that is 0 in some direction cannot be whitened."
            )
        self.__dict__["_factor"], self.__dict__["_inverse"] = L, torch.linalg.inv(L)
        power = float(self.__dict__["_inverse"].abs().square().sum()) / len(c)
        self._settle_level(power**-0.5)

    @classmethod
    def from_factor(cls, factor: Tensor, axis: int | None = 1) -> CorrelatedGaussian:
        """From L (k, k) with cov = L L^H: for example that of Cholesky."""
        return cls(factor @ factor.mH, axis)

    def factor(self, like: Tensor) -> Tensor:
        """L, the lower triangular one, in the precision and on the device of like."""
        L: Tensor = self.__dict__["_factor"]
        return L.to(like.device, like.dtype)

    def inverse_factor(self, like: Tensor) -> Tensor:
        """L^-1 in the precision and on the device of like."""
        inverse: Tensor = self.__dict__["_inverse"]
        return inverse.to(like.device, like.dtype)

    def admit(self, y: Tensor) -> Tensor:
        if self.axis is not None and self.axis >= y.ndim:
            raise InvdiffError(f"A measurement of {y.ndim} axes has no axis {self.axis}.")
        size = y[0].numel() if self.axis is None else y.shape[self.axis]
        if size != len(self.cov):
            raise InvdiffError(
                f"A covariance of {len(self.cov)} x {len(self.cov)} does not fit {size} numbers "
                f"along {'the measurement' if self.axis is None else f'axis {self.axis}'}."
            )
        if self.cov.is_complex() and not y.is_complex():
            raise InvdiffError("A complex covariance is of complex measurements, found real ones.")
        return y

    def colour(self, n: Tensor) -> Tensor:
        return along(self.factor(n), n, self.axis)

    def whiten(self, r: Tensor) -> Tensor:
        return along(self.inverse_factor(r), r, self.axis)

    def whiten_adjoint(self, w: Tensor) -> Tensor:
        return along(self.inverse_factor(w).mH, w, self.axis)

    def log_volume(self, r: Tensor) -> Tensor:
        d = self.factor(r).diagonal().real
        repeats = r[0].numel() // len(d) * (2 if r.is_complex() else 1)
        total = repeats * (d * math.sqrt(2 * math.pi)).log().sum()
        return total.expand(len(r))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        cov = self.cov
        if dtype is not None:
            dtype = dtype.to_complex() if cov.is_complex() else dtype
        return replace(self, cov=cov.to(device, dtype or cov.dtype))


def along(matrix: Tensor, y: Tensor, axis: int | None) -> Tensor:
    """matrix (k, k) times every vector along an axis of y; None: along all of a measurement."""
    if axis is None:
        return (y.flatten(1) @ matrix.mT).reshape(y.shape)
    return (y.movedim(axis, -1) @ matrix.mT).movedim(-1, axis)
