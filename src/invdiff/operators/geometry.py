"""Where the rays of a scan run: what files, operators and reconstructions share of a scanner."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invdiff.core import InvdiffError, brief
from invdiff.core.arguments import admit
from invdiff.operators.sizes import LONGEST_SIDE, checked_size, whole


@dataclass(frozen=True)
class Geometry:
    """Parallel rays, or a fan from a point, seen by a straight detector from several angles.

    Lengths are in one unit: pixels of an image, or bins. The origin is the axis of rotation, x
    points right and y up. At the angle theta (degrees, counter-clockwise) the detector lies along
    u = (cos, sin) and rays travel along v = (-sin, cos). Bin j is at
    s_j = (j - (detectors - 1) / 2 - shift) pitch:
      parallel   the ray of bin j is s_j u + t v, that is x cos + y sin = s_j
      fan        the ray of bin j runs from the source at -source v through s_j u: the detector is
                 flat, and its pitch is measured where it would stand on the axis of rotation
    At theta = 0 parallel rays sum columns, and bins count from left to right.

    angles: of the views, degrees. detectors: bins; 0 for as many as the image needs. pitch: width
    of a bin. shift: the axis falls on bin (detectors - 1) / 2 + shift. source: distance from the
    source to the axis, None for parallel rays.
    Raises InvdiffError for no angles, and for lengths that are not above 0.
    """

    angles: tuple[float, ...]
    detectors: int = 0
    pitch: float = 1.0
    shift: float = 0.0
    source: float | None = None

    def __post_init__(self) -> None:
        admit(self)
        if not self.angles:
            raise InvdiffError("A projection needs at least one angle, found none.")
        bins = self.detectors
        if not ((bins == 0 or whole(bins)) and bins <= LONGEST_SIDE and self.pitch > 0):
            raise InvdiffError(
                f"A detector has 1 to {LONGEST_SIDE} bins, or 0 for as many as the image needs, "
                f"and a pitch above 0, found {bins} bins and pitch {self.pitch}."
            )
        if self.source is not None and not self.source > 0:
            raise InvdiffError(
                f"The source of a fan is at a distance above 0 from the axis, found {self.source}; "
                "give none for parallel rays."
            )

    def __repr__(self) -> str:
        return brief(self, defaults=False)

    @property
    def spread(self) -> float:
        """1 / source: by how much a ray turns per unit of the detector, 0 for parallel rays."""
        return 0.0 if self.source is None else 1 / self.source

    def bins(self) -> Tensor:
        """Positions s_j on the detector, float64."""
        j = torch.arange(self.detectors, dtype=torch.float64)
        return (j - (self.detectors - 1) / 2 - self.shift) * self.pitch

    def arcs(self) -> Tensor:
        """The angle in radians that each view stands for: half of the gaps to its two neighbours.

        Views repeat after 180 degrees for parallel rays; for a fan after 360, where every line is
        seen twice, so each counts half. A gap of more than twice the usual one was not measured.
        """
        period = 180.0 if self.source is None else 360.0
        angles = torch.tensor(self.angles, dtype=torch.float64) % period
        order = angles.argsort(stable=True)
        ordered = angles[order]
        gaps = torch.cat([ordered, ordered[:1] + period]).diff()
        usual = gaps[gaps > 1e-9].median()
        gaps = torch.where(gaps > 2 * usual, usual, gaps)
        arcs = torch.empty_like(gaps)
        arcs[order] = (gaps + gaps.roll(1)) / 2
        return arcs * (math.pi / period)

    def views(self, chosen: Tensor | Sequence[int]) -> Geometry:
        """Only the views of these indices."""
        return dataclasses.replace(self, angles=tuple(self.angles[int(k)] for k in chosen))

    def shifted(self, shift: float) -> Geometry:
        """The same with the axis on bin (detectors - 1) / 2 + shift."""
        return dataclasses.replace(self, shift=shift)

    def rescaled(self, factor: float) -> Geometry:
        """The same rays with lengths in a unit that is `factor` times shorter."""
        source = None if self.source is None else self.source * factor
        return dataclasses.replace(self, pitch=self.pitch * factor, source=source)

    def covering(self, size: tuple[int, int]) -> Geometry:
        """The same with as many bins as see all of an image of (height, width).

        Of a fan, the ray that touches the circle of radius r around the image meets the axis' line
        at r / cos, with the sine r / source.
        Raises InvdiffError where the source is nearer than 1.1 r.
        """
        r = math.hypot(*checked_size(size)) / 2
        wide = r
        if self.source is not None:
            if self.source < 1.1 * r:
                raise InvdiffError(
                    f"The source is {self.source:g} pixels from the axis, too near an image whose "
                    f"corners reach {r:.4g}; give at least {math.ceil(1.1 * r)}."
                )
            wide = r / math.sqrt(1 - (r / self.source) ** 2)
        bins = math.ceil(2 * wide / self.pitch + 2 * abs(self.shift))
        return dataclasses.replace(self, detectors=bins)
