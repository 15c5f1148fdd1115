"""Where the axis of rotation falls on the detector."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.scans.sinogram import Sinogram

Method = Literal["opposite", "mass"]


def centre_of_rotation(sinogram: Sinogram, method: Method = "opposite") -> float:
    """`Radon.shift`, in bins: the axis falls on bin (bins - 1) / 2 + shift. Parallel rays.

    opposite: a view and the mirrored one of half a turn later are the same but for a translation by
    2 shift, found at the peak of their cross-correlation to a fraction of a bin (Guizar-Sicairos,
    Thurman, Fienup 2008, Optics Letters 33, 156). The later view is a line through the two that
    are nearest. All pairs of views within one step are used; the median counts.
    mass: the centre of mass of a view is shift + a cos + b sin of its angle; needs views that show
    the whole object, and no half turn.
    Raises InvdiffError when no two views are half a turn apart, within one step.
    """
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
    shifts = []
    for k in range(len(theta)):
        wanted = float(theta[k]) + 180
        if wanted > float(theta[-1]) + 1.01 * step:
            break
        j = int(torch.searchsorted(theta, wanted).clamp(1, len(theta) - 1))
        a, b = float(theta[j - 1]), float(theta[j])
        if b - a > 2.5 * step or b - a <= 0:
            continue
        share = (wanted - a) / (b - a)
        later = (1 - share) * z[j - 1] + share * z[j]
        shifts.append(_translation(z[k], later.flip(0)) / 2)
    if not shifts:
        raise InvdiffError(
            f"The views reach from {float(theta[0]):g} to {float(theta[-1]):g} degrees, so none is "
            "half a turn from another; give the centre, or take method='mass'."
        )
    return float(torch.tensor(shifts, dtype=torch.float64).median())


def _translation(p: Tensor, q: Tensor) -> float:
    """d for which p(j + d) is most like q(j): the peak of the band-limited cross-correlation."""
    n = 2 * len(p)
    spectrum = torch.fft.rfft(p - p.mean(), n) * torch.fft.rfft(q - q.mean(), n).conj()
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
