"""Noise with heavy tails, and noise of magnitudes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise.base import Noise, parts, positive, real, white, whole


@dataclass(frozen=True)
class Independent(Noise):
    """y = z + n with independent entries of n; of a complex n, both parts have the same law."""

    additive: ClassVar[bool] = True

    @property
    def has_density(self) -> bool:
        return True

    def log_density(self, r: Tensor) -> Tensor:
        """log f(r) of each entry, r real."""
        raise NotImplementedError

    def pull(self, r: Tensor) -> Tensor:
        """-d log f / dr of each entry, r real: the score."""
        raise NotImplementedError

    def variance(self, like: Tensor, rng: Rng) -> Tensor:
        """Random variances, > 0, with which normal numbers have the law f; of like's shape."""
        raise NotImplementedError

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        n = parts(white(z, rng)) * self.variance(parts(z), rng).sqrt()
        return z + whole(n, z)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Per sample, shape (B,)."""
        return self.log_density(parts(y - z)).flatten(1).sum(1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        return whole(self.pull(parts(y - z)), y - z)


@dataclass(frozen=True)
class Laplace(Independent):
    """y = z + n with density exp(-|n| / scale) / (2 scale): some entries are far off.

    scale: mean of |n|, > 0, in the units of y; the standard deviation is sqrt(2) scale. Complex
    numbers: of the real part, and of the imaginary part.
    """

    scale: float

    def __post_init__(self) -> None:
        positive("The scale of Laplace noise", self.scale)

    def variance(self, like: Tensor, rng: Rng) -> Tensor:
        return 2 * self.scale**2 * rng.gamma(1.0, like, "measurement-scale")

    def log_density(self, r: Tensor) -> Tensor:
        return -r.abs() / self.scale - math.log(2 * self.scale)

    def pull(self, r: Tensor) -> Tensor:
        return r.sign() / self.scale


@dataclass(frozen=True)
class StudentT(Independent):
    """y = z + scale t, t of Student's law with df degrees of freedom: outliers of any size.

    scale: > 0, in the units of y. df: > 0; 1 is Cauchy's law, and towards infinity it is
    GaussianNoise(scale). Complex numbers: of the real part, and of the imaginary part.
    """

    scale: float
    df: float = 3.0

    def __post_init__(self) -> None:
        positive("The scale of Student's noise", self.scale)
        positive("The degrees of freedom of Student's noise", self.df)

    def variance(self, like: Tensor, rng: Rng) -> Tensor:
        chi2 = 2 * rng.gamma(self.df / 2, like, "measurement-scale")
        return self.scale**2 * self.df / chi2

    def log_density(self, r: Tensor) -> Tensor:
        v = self.df
        norm = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - 0.5 * math.log(v * math.pi)
        tail = torch.log1p((r / self.scale).square() / v)
        return norm - math.log(self.scale) - 0.5 * (v + 1) * tail

    def pull(self, r: Tensor) -> Tensor:
        return (self.df + 1) * r / (self.df * self.scale**2 + r.square())


@dataclass(frozen=True)
class Rician(Noise):
    """y = |z + sigma (n1 + i n2)|: the magnitude of a complex signal of magnitude |z|.

    sigma: standard deviation of the real part and of the imaginary part before the magnitude was
    taken, > 0. z is real, its sign is not seen; y >= 0, and a y of 0 is scored as the smallest
    positive number of its precision.
    """

    sigma: float

    def __post_init__(self) -> None:
        positive("The sigma of Rician noise", self.sigma)

    @property
    def has_density(self) -> bool:
        return True

    def admit(self, y: Tensor) -> Tensor:
        negative = int((real(y, "Rician") < 0).sum())
        if negative:
            raise InvdiffError(
                f"Rician noise is of magnitudes, but {negative} values of y are negative; "
                "give magnitudes, and an operator whose output is on the same scale."
            )
        return y

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        n = rng.normal(torch.stack([real(z, "Rician"), z], dim=-1), "measurement")
        return torch.hypot(z + self.sigma * n[..., 0], self.sigma * n[..., 1])

    def _argument(self, y: Tensor, z: Tensor) -> Tensor:
        """That of the Bessel functions, y z / sigma^2."""
        return y * real(z, "Rician") / self.sigma**2

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log(y / sigma^2) - (y^2 + z^2) / (2 sigma^2) + log I0(y z / sigma^2), shape (B,)."""
        bessel = torch.special.i0e(self._argument(y, z)).log()
        far = ((y - z.abs()) / self.sigma).square() / 2
        height = y.clamp_min(torch.finfo(y.dtype).tiny).log() - 2 * math.log(self.sigma)
        return (height - far + bessel).flatten(1).sum(1)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """(y I1 / I0 - z) / sigma^2."""
        u = self._argument(y, z)
        ratio = torch.special.i1e(u) / torch.special.i0e(u)
        return (y * ratio - z) / self.sigma**2
