"""A noise level, as solvers see it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from invdiff.core.errors import InvdiffError


@dataclass(frozen=True)
class Level:
    """A noise level of the frame x_t = a x0 + s eps, with eps ~ N(0, I).

    a: signal scale, > 0 (1 for variance-exploding schedules). s: noise scale, >= 0.
    Python floats, so that reading a level never waits for a device.
    Raises InvdiffError for other numbers.
    """

    a: float
    s: float

    def __post_init__(self) -> None:
        plain = type(self.a) is type(self.s) is float
        if not plain or not (0 < self.a < math.inf and 0 <= self.s < math.inf):
            self._admit()

    def _admit(self) -> None:
        """a and s as Python floats, which a whole schedule of them already has."""
        from invdiff.core.arguments import admit

        admit(self)
        if not (self.a > 0 and self.s >= 0):
            raise InvdiffError(
                f"A level has a signal scale a above 0 and a noise scale s of at least 0, found "
                f"a = {self.a:g} and s = {self.s:g}."
            )

    @property
    def sigma(self) -> float:
        """s / a: the noise level of x_t / a, which is all that a denoiser needs."""
        return self.s / self.a

    @property
    def alpha_bar(self) -> float:
        """a^2 / (a^2 + s^2); equals a^2 on a variance-preserving schedule."""
        return self.a**2 / (self.a**2 + self.s**2)


CLEAN = Level(1.0, 0.0)
