"""A noise level, as solvers see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """A noise level of the frame x_t = a x0 + s eps, with eps ~ N(0, I).

    a: signal scale, > 0 (1 for variance-exploding paths). s: noise scale, >= 0.
    Python floats, so that reading a level never waits for a device.
    """

    a: float
    s: float

    @property
    def sigma(self) -> float:
        """s / a: the noise level of x_t / a, which is all that a denoiser needs."""
        return self.s / self.a

    @property
    def alpha_bar(self) -> float:
        """a^2 / (a^2 + s^2); equals a^2 on a variance-preserving path."""
        return self.a**2 / (self.a**2 + self.s**2)


CLEAN = Level(1.0, 0.0)
