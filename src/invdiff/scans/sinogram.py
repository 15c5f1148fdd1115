"""The line integrals of one detector row, with their angles and their noise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from invdiff.operators.geometry import Geometry
from invdiff.operators.radon import Radon


@dataclass(frozen=True, eq=False)
class Sinogram:
    """Line integrals of one detector row, as `Radon` makes them.

    integrals: (views, bins) float32, -log of transmission; where `trusted` is False they were
    filled in from the neighbouring bins. angles: of the views, degrees.
    variance: of every line integral, (views, bins), of photon noise: 1 / photons. Photons are
    counts divided by the gain, which is 1 where the file has too few white fields to find it.
    None where the file holds no counts. trusted: (views, bins) bool, False for bins that saw no
    beam and for outliers. facts: what was found and done, one short phrase each.
    source: of a fan, the distance from the source to the axis of rotation, in bins as wide as they
    would be on the axis; None for parallel rays.
    """

    integrals: Tensor
    angles: tuple[float, ...]
    variance: Tensor | None
    trusted: Tensor
    facts: tuple[str, ...] = ()
    source: float | None = None

    @property
    def y(self) -> Tensor:
        """The measurement of `Radon`, (1, 1, views, bins)."""
        return self.integrals[None, None]

    @property
    def geometry(self) -> Geometry:
        """Where the rays run, in bins, with the axis in the middle of the detector."""
        return Geometry(self.angles, self.integrals.shape[1], source=self.source)

    def radon(self, size: tuple[int, int], shift: float = 0.0, pitch: float = 1.0) -> Radon:
        """The operator of these rays through images of `size`.

        shift: `centre_of_rotation`. pitch: width of a bin, in pixels.
        """
        return Radon.of(self.geometry.shifted(shift).rescaled(pitch), size)

    def views(self, chosen: Tensor) -> Sinogram:
        """Only the views of these indices."""
        return dataclasses.replace(
            self,
            integrals=self.integrals[chosen],
            angles=self.geometry.views(chosen).angles,
            variance=None if self.variance is None else self.variance[chosen],
            trusted=self.trusted[chosen],
        )
