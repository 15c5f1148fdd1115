"""Where the axis of rotation falls on the detector."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.fan import axis_of_fan
from invdiff.scans.sinogram import Sinogram

Method = Literal["opposite", "mass"]
NEAR = 3
"""Views that are up to so many steps from half a turn apart still tell of the axis."""


def centre_of_rotation(sinogram: Sinogram, method: Method = "opposite") -> float:
    """`Radon.shift`, in bins: the axis falls on bin (bins - 1) / 2 + shift.

    Of a fan it is found by rays that were measured from both sides (`scans.fan.axis_of_fan`); of
    parallel rays by a method:

    opposite: a view and the mirrored one of half a turn later are the same but for a translation by
    2 shift, found at the peak of their cross-correlation to a fraction of a bin (Guizar-Sicairos,
    Thurman, Fienup 2008, Optics Letters 33, 156). Where no two views are exactly half a turn apart,
    the translations of pairs that are up to `NEAR` steps off make a line, of which the value at
    half a turn counts.
    mass: the centre of mass of a view is shift + a cos + b sin of its angle; needs views that show
    the whole object, and no half turn.
    Raises InvdiffError when no two views are half a turn apart, within one step, and for a fan
    whose rays were measured once.
    """
    if sinogram.source is not None:
        return axis_of_fan(sinogram)
    z = sinogram.integrals.double()
    theta = torch.tensor(sinogram.angles, dtype=torch.float64)
    if method == "mass":
        return _by_mass(z, theta)
    if method != "opposite":
        raise InvdiffError(f"A centre is found by opposite or by mass, not by {method!r}.")
    order = theta.argsort()
    z, theta = z[order], theta[order]
    if len(theta) < 3:
        raise InvdiffError("A centre of rotation needs at least three views.")
    step = float(theta.diff().median())
    off = theta[None, :] - theta[:, None] - 180
    exact = off.abs() <= 1e-3 * step
    pairs = (exact if bool(exact.any()) else off.abs() <= (NEAR + 0.01) * step).nonzero()
    if step <= 0 or not bool((off.abs() <= 1.01 * step).any()):
        raise InvdiffError(
            f"The views reach from {float(theta[0]):g} to {float(theta[-1]):g} degrees, so none is "
            "half a turn from another; give the centre, or take method='mass'."
        )
    shifts = [_translation(z[i], z[j].flip(0)) / 2 for i, j in pairs.tolist()]
    found = torch.tensor(shifts, dtype=torch.float64)
    if bool(exact.any()):
        return float(found.median())
    turn = off[pairs[:, 0], pairs[:, 1]]
    line = torch.stack([torch.ones_like(turn), turn], 1)
    return float(torch.linalg.lstsq(line, found[:, None]).solution[0])


def _translation(p: Tensor, q: Tensor) -> float:
    """d for which p(j + d) is most like q(j): the peak of the band-limited cross-correlation.

    The level beside the object is taken off first, which is the lower of those at the two ends: a
    step at the ends of the detector would draw the peak to 0.
    """
    n, rim = 2 * len(p), max(2, len(p) // 50)
    p, q = (v - torch.minimum(v[:rim].mean(), v[-rim:].mean()) for v in (p, q))
    spectrum = torch.fft.rfft(p, n) * torch.fft.rfft(q, n).conj()
    coarse = torch.fft.irfft(spectrum, n)
    best = int(coarse.argmax())
    best = best - n if best >= n // 2 else best
    k = torch.arange(len(spectrum), dtype=torch.float64) * (2 * math.pi / n)
    width = 1.0
    at = float(best)
    for _ in range(4):  # a grid of 41 points, each ten times finer
        d = at + width * torch.linspace(-1, 1, 41, dtype=torch.float64)
        wave = torch.polar(torch.ones(len(d), len(k), dtype=torch.float64), d[:, None] * k)
        at = float(d[(wave * spectrum).real.sum(1).argmax()])
        width /= 10
    return at


def _by_mass(z: Tensor, theta: Tensor) -> float:
    bins = torch.arange(z.shape[1], dtype=torch.float64) - (z.shape[1] - 1) / 2
    total = z.sum(1)
    if len(z) < 3 or not bool((total > 0).all()):
        raise InvdiffError("A centre of mass needs at least three views that show an object.")
    turn = theta.deg2rad()
    waves = torch.stack([torch.ones_like(turn), turn.cos(), turn.sin()], 1)
    return float(torch.linalg.lstsq(waves, (z @ bins / total)[:, None]).solution[0])
