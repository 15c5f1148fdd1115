"""Photon counting, alone and with the read noise of the electronics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise.base import Noise, positive, real


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

    def __post_init__(self) -> None:
        positive("A Poisson peak, in counts,", self.peak)
        if not -math.inf < self.black < self.white < math.inf:
            raise InvdiffError(f"white must exceed black, found {self.white} and {self.black}.")

    @property
    def has_density(self) -> bool:
        return True

    def admit(self, y: Tensor) -> Tensor:
        return real(y, type(self).__name__)

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


@dataclass(frozen=True)
class PoissonGaussian(Poisson):
    """Photon counting and read noise: y = counts / gain + black + read_sigma n / gain.

    peak, black, white: as for `Poisson`. read_sigma: standard deviation of the read noise in
    counts, > 0.
    `sample` is exact. The exact density is a sum over all counts; log_prob and score are those of
    the normal law of the same mean and variance, N(z, (rate(z) + read_sigma^2) / gain^2), whose
    variance depends on z (Foi et al. 2008, IEEE Trans. Image Processing 17, 1737). It is off by
    the skewness, rate / (rate + read_sigma^2)^(3/2): good from some ten counts on.
    """

    read_sigma: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("The standard deviation of read noise, in counts,", self.read_sigma)

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        read = rng.normal(z, "measurement-read")
        return super().sample(z, rng) + self.read_sigma / self.gain * read

    def _moments(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """y minus its mean, and its variance, in counts."""
        rate = self.rate(z)
        return self.gain * (y - self.black) - rate, rate + self.read_sigma**2

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Per sample, shape (B,), of the normal approximation; a density in the units of y."""
        r, v = self._moments(y, z)
        log_p = -0.5 * (r.square() / v + v.log()) + math.log(self.gain / math.sqrt(2 * math.pi))
        return log_p.flatten(1).sum(1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """gain (r / v + (r^2 / v - 1) / (2 v)), r and v in counts; 0 where z is below black."""
        r, v = self._moments(y, z)
        slope = self.gain * (r + (r.square() / v - 1) / 2) / v
        return torch.where(z > self.black, slope, 0.0)
