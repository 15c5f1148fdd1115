"""Noise models: how a measurement scatters around A(x0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError, log_normal
from invdiff.rng import Rng


@dataclass(frozen=True)
class Noise:
    """What lies between z = A(x0) and the measurement y."""

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        """Draw y given z, shape (B, ...); row i depends on the i-th seed only."""
        raise NotImplementedError

    @property
    def has_density(self) -> bool:
        """Whether log_prob and score exist: not for a noiseless measurement."""
        return False

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(y | z) of every sample, shape (B,)."""
        raise NotImplementedError

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """Gradient of log p(y | z) with respect to z, shape of z.

        For complex z it is d/d(Re z) + i d/d(Im z), so that A.vjp(x, score) is the gradient with
        respect to x where z = A(x).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Gaussian(Noise):
    """y = z + sigma n, n ~ N(0, I).

    sigma: standard deviation, >= 0, in the units of y; for complex y it is the standard deviation
    of the real part, and of the imaginary part. Gaussian(0) is a noiseless measurement.
    `Gaussian.on_unit_range(s)` takes a level that was quoted for images in [0, 1] and converts it
    to images in [-1, 1], where it is 2 s: published levels differ by this factor.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma >= 0 or self.sigma == float("inf"):
            raise InvdiffError(
                f"A noise level is a finite number that is not negative, found {self.sigma}."
            )

    @classmethod
    def on_unit_range(
        cls, sigma: float, value_range: tuple[float, float] = (-1.0, 1.0)
    ) -> Gaussian:
        """Noise level quoted for images in [0, 1], for a prior whose images lie in value_range."""
        return cls((value_range[1] - value_range[0]) * sigma)

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        if z.is_complex():
            n = rng.normal(torch.view_as_real(z.resolve_conj()), "measurement")
            return z + self.sigma * torch.view_as_complex(n.contiguous())
        return z + self.sigma * rng.normal(z, "measurement")

    @property
    def has_density(self) -> bool:
        return self.sigma > 0

    def _check_density(self) -> None:
        if not self.has_density:
            raise InvdiffError("A noiseless measurement has no density; give a sigma above 0.")

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Per sample, shape (B,). Raises InvdiffError at sigma = 0, where there is no density."""
        self._check_density()
        r = y - z
        return log_normal(
            torch.view_as_real(r.resolve_conj()) if r.is_complex() else r, self.sigma**2
        )

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """(y - z) / sigma^2. Raises InvdiffError at sigma = 0, where there is no density."""
        self._check_density()
        return (y - z) / self.sigma**2


NOISELESS = Gaussian(0.0)


@dataclass(frozen=True)
class Poisson(Noise):
    """Photon counting on an affine scale: counts ~ Poisson(peak (z - black) / (white - black)).

    peak: expected counts at white, > 0. black, white: values of z at no light and at full light.
    y is mapped back to the scale of z. A z below black counts as black when drawn and when scored.
    """

    peak: float
    black: float = -1.0
    white: float = 1.0
    floor: ClassVar[float] = 1e-3

    @property
    def has_density(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if not self.peak > 0:
            raise InvdiffError(f"A Poisson peak is a number of counts above 0, found {self.peak}.")
        if not self.white > self.black:
            raise InvdiffError(f"white must exceed black, found {self.white} and {self.black}.")

    @property
    def gain(self) -> float:
        """Counts per unit of z."""
        return self.peak / (self.white - self.black)

    def rate(self, z: Tensor) -> Tensor:
        """Expected counts, >= 0."""
        return (self.gain * (z - self.black)).clamp_min(0)

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        return rng.poisson(self.rate(z), "measurement") / self.gain + self.black

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Per sample, shape (B,); rates are floored at 1e-3 counts so that the score is finite."""
        k = self.rate(y)
        rate = self.rate(z).clamp_min(self.floor)
        return (k * rate.log() - rate - torch.lgamma(k + 1)).flatten(1).sum(1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """gain (counts / rate - 1); 0 where the rate stands at its floor."""
        rate = self.rate(z).clamp_min(self.floor)
        return torch.where(rate > self.floor, self.gain * (self.rate(y) / rate - 1), 0.0)
