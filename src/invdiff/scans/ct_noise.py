"""The noise of reconstructed CT slices, by its spectrum: measured in soft tissue."""

from __future__ import annotations

import statistics

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import StationaryGaussian
from invdiff.noise.bands import spectrum_of_levels
from invdiff.noise.flat import typical_levels

TISSUE = (-200.0, 300.0)
"""Hounsfield units of soft tissue, with its noise: the flattest part of a body."""
SCALES = 3
USUAL = (0.5, 1.0, 0.8)
"""Levels at scales of 1, 2 and 4 pixels of the noise of a smooth kernel, relative to the largest:
simulated scans back-projected with a Hann window have 0.3 to 0.5, 1 and 0.8."""
SPARED = 8
"""Slices of a stack, in equal steps, that the noise is measured in."""


def ct_noise(hu: Tensor, level: float | None = None) -> tuple[StationaryGaussian, list[float]]:
    """(noise of slices (slices, 1, H, W) in HU, its levels at scales 1, 2, ... pixels).

    Filtered back-projection leaves noise that is correlated: little at low frequencies, most in the
    middle, and what the kernel of the scanner lets through above (Riederer, Pelc, Chesler 1978,
    Phys. Med. Biol. 23, 446). Its level is the median over windows of soft tissue of the diagonal
    Haar details, at up to three scales; of a stack, over slices. level: the standard deviation in
    HU, if it is known; the shape of the spectrum is measured.
    Where there is too little soft tissue for that, it is `usual_noise`.
    Raises InvdiffError where the slices show too little soft tissue, and no level is known.
    """
    count = len(hu)
    chosen = hu if count <= SPARED else hu[[k * count // SPARED for k in range(SPARED)]]
    found = []
    for image in chosen:
        usable = ((image > TISSUE[0]) & (image < TISSUE[1]))[0]
        found.append(typical_levels(image, usable, SCALES))
    most = max(map(len, found))
    if most < 1 and level is not None:
        return usual_noise(level), list(USUAL)
    if most < 1:
        raise InvdiffError(
            "The slices show too little soft tissue (-200 to 300 HU) to measure their noise: give "
            "slices of the body, or the level with --noise."
        )
    levels = [statistics.median([row[k] for row in found if len(row) > k]) for k in range(most)]
    if not max(levels) > 0:
        raise InvdiffError("The soft tissue of the slices is without noise; nothing is to remove.")
    field = spectrum_of_levels(levels)
    if level is None:
        return field, levels
    scale = level / deviation(field)
    return field.scaled(scale), [scale * v for v in levels]


def usual_noise(level: float) -> StationaryGaussian:
    """Noise of a deviation in HU with the spectrum of a smooth kernel: USUAL."""
    field = spectrum_of_levels(list(USUAL))
    return field.scaled(level / deviation(field))


def deviation(field: StationaryGaussian, side: int = 64) -> float:
    """The standard deviation of a pixel."""
    return float(field.spectrum((side, side)).square().mean().sqrt())
