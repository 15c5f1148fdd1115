"""The spectrum of a photograph's noise, from its floors at several scales; and whether it is white.

Phones smooth the noise that they leave, demosaicing and JPEG files do the same: then the finest
scale holds next to none of it, and a level that was measured there is far too small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise.flat import colour_axes, noise_floors, unclipped
from invdiff.noise.stationary import StationaryGaussian

SCALES = 3
VISIBLE = 0.012
"""Level at the second scale from which correlated noise is told, on [0, 1]."""
RISE = 2.5
"""Ratio of the second floor over the finest from which noise is called correlated: white noise has
1.0 to 2.4 on photographs, and noise that a Gaussian of 0.7 pixels smoothed 2.9 to 6."""
FLAT = 3.2
"""Ratio of the third floor over the second up to which that rise is noise: its spectrum is flat
towards low frequencies, where texture's rises on."""
LEVELLED = 1.6
"""Ratio of the third level over the second at most: 1.5 of noise that a Gaussian of 0.7 pixels
smoothed. What is above is texture, which would be smoothed away."""
SPAN = 20.0
"""Ratio of the largest sigma of a spectrum over the smallest, at most: what is left of smoothed
noise at the highest frequencies is rounding, and no solver should trust it."""


def correlated_floors(pixels: Tensor) -> tuple[float, float] | None:
    """(level at the finest scale, level at the next) where the noise of (C, H, W) is correlated.

    On [0, 1], of brightness. None where noise is white, or none was found.
    """
    brightness, _ = colour_axes(pixels)
    floors = noise_floors(brightness, unclipped(pixels), SCALES)
    if len(floors) < 2 or not floors[1].found or floors[1].sigma < VISIBLE:
        return None
    fine, next_ = floors[0].sigma, floors[1].sigma
    rises = next_ > RISE * fine
    levels_off = len(floors) < SCALES or floors[2].sigma < FLAT * next_
    return (fine, next_) if rises and levels_off else None


def noise_spectrum(pixels: Tensor) -> StationaryGaussian:
    """The noise of a photograph (1 or 3, H, W) on [0, 1], by its spectrum.

    From the floors of the diagonal Haar bands at up to three scales, of brightness and of colour
    differences: the spectrum whose power in these bands is what was measured. Below the coarsest
    band it is constant. What is the same everywhere counts as noise, fine cloth too.
    Raises InvdiffError where the flat parts of the picture are too few.
    """
    usable, rows = unclipped(pixels), []
    for part in colour_axes(pixels):
        if part is not None:
            floors = noise_floors(part, usable, SCALES)
            if len(floors) < 2:
                raise InvdiffError(
                    "The picture has too few pixels that are neither black nor white to tell the "
                    "spectrum of its noise; give its level with --noise."
                )
            levels = [floor.sigma for floor in floors]
            rows.append([*levels[:2], *(min(s, LEVELLED * levels[1]) for s in levels[2:])])
    count = min(map(len, rows))
    least = max(map(max, rows)) / SPAN
    fitted = tuple(tuple(_fitted([max(m, least) for m in row[:count]], least)) for row in rows)
    return StationaryGaussian(tuple(0.5**k for k in range(count, 0, -1)), fitted)


def spectrum_of_levels(levels: list[float]) -> StationaryGaussian:
    """The spectrum of one channel whose diagonal Haar bands at scales 1, 2, ... have these levels.

    Raises InvdiffError where none is above 0.
    """
    least = max(levels, default=0.0) / SPAN
    if not 0 < least < math.inf:
        raise InvdiffError(f"Levels of noise are finite, and one is above 0, found {levels}.")
    nodes = tuple(0.5**k for k in range(len(levels), 0, -1))
    return StationaryGaussian(nodes, (tuple(_fitted([max(v, least) for v in levels], least)),))


def _fitted(measured: list[float], least: float) -> list[float]:
    """sigmas at frequencies 2^-K to 1/2 that give the measured levels of the bands 1 to K."""
    count = len(measured)
    wanted = torch.tensor(measured, dtype=torch.float64).flip(0)
    powers = _bands(count)
    sigmas = wanted.clone()
    nodes = tuple(0.5**k for k in range(count, 0, -1))
    for _ in range(50):  # each band pulls at the node in its middle
        field = StationaryGaussian(nodes, (tuple(sigmas.tolist()),)).spectrum((GRID, GRID))[0]
        found = (powers * field.square()).mean((1, 2)).sqrt()
        sigmas = (sigmas * wanted / found).clamp(least, least * SPAN)
    return [float(s) for s in sigmas]


GRID = 64


def _bands(count: int) -> Tensor:
    """|H_k|^2 of the diagonal Haar bands K to 1 on a grid of frequencies, each of mean 1."""
    f = torch.fft.fftfreq(GRID, dtype=torch.float64)
    low, found = torch.ones(GRID, dtype=torch.float64), []
    for k in range(count):
        angle = math.pi * 2**k * f
        high = low * 2 * torch.sin(angle).square()
        found.append(torch.outer(high, high))
        low = low * 2 * torch.cos(angle).square()
    return torch.stack(found[::-1])
