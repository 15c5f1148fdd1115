"""White Gaussian noise, and none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff.core import InvdiffError, log_normal
from invdiff.core.rng import Rng
from invdiff.noise.base import Noise, parts, white


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """y = z + sigma n, n ~ N(0, I).

    sigma: standard deviation, >= 0, in the units of y; for complex y it is the standard deviation
    of the real part, and of the imaginary part. GaussianNoise(0) is a noiseless measurement.
    `GaussianNoise.on_unit_range(s)` takes a level that was quoted for images in [0, 1] and converts
    it to images in [-1, 1], where it is 2 s: published levels differ by this factor.
    """

    sigma: float

    additive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.sigma >= 0 or self.sigma == float("inf"):
            raise InvdiffError(
                f"A noise level is a finite number that is not negative, found {self.sigma}."
            )

    @classmethod
    def on_unit_range(
        cls, sigma: float, value_range: tuple[float, float] = (-1.0, 1.0)
    ) -> GaussianNoise:
        """Noise level quoted for images in [0, 1], for a prior whose images lie in value_range."""
        return cls((value_range[1] - value_range[0]) * sigma)

    def sample(self, z: Tensor, rng: Rng) -> Tensor:
        return z + self.sigma * white(z, rng)

    @property
    def sigma_y(self) -> float:
        return self.sigma

    @property
    def has_density(self) -> bool:
        return self.sigma > 0

    def _check_density(self) -> None:
        if not self.has_density:
            raise InvdiffError("A noiseless measurement has no density; give a sigma above 0.")

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """Per sample, shape (B,). Raises InvdiffError at sigma = 0, where there is no density."""
        self._check_density()
        return log_normal(parts(y - z), self.sigma**2)

    def score(self, y: Tensor, z: Tensor) -> Tensor:
        """(y - z) / sigma^2. Raises InvdiffError at sigma = 0, where there is no density."""
        self._check_density()
        return (y - z) / self.sigma**2


NOISELESS = GaussianNoise(0.0)
