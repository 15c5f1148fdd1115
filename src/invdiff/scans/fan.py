"""Of a fan: where its axis falls on the detector, and whether it turns the way that was told."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.algebra.krylov import least_squares
from invdiff.operators.geometry import Geometry
from invdiff.operators.radon import Radon
from invdiff.scans.sinogram import Sinogram

SEEN_TWICE = 0.1
"""Share of the rays that are to be measured from both sides, at least."""
COARSE, VIEWS, STEPS = 96, 90, 8
"""Bins and views that a check of the direction takes, and steps of least squares."""
BETTER = 0.7
"""Ratio of the residuals of the two directions below which the other one fits better: on a fan 2.5
times as far away as it is wide the right one leaves a quarter."""


def axis_of_fan(s: Sinogram) -> float:
    """`Radon.shift` of a fan, in bins, by rays that were measured from both sides.

    The ray of angle theta and position s on the detector, gamma = atan(s / source), is the one of
    theta + 180 - 2 gamma and -s: the shift for which they differ least. It is searched within a
    quarter of the detector, and to a hundredth of a bin.
    Raises InvdiffError where too few rays were measured twice.
    """
    if s.source is None:
        raise InvdiffError("The rays are parallel; centre_of_rotation finds their axis.")
    geometry, z = s.geometry, s.integrals.double()
    reach, width = s.integrals.shape[1] / 4, 1.0
    shifts = torch.arange(-math.floor(reach), math.floor(reach) + 1, dtype=torch.float64)
    best = _least(z, geometry, shifts)
    for _ in range(2):
        shifts = best + width * torch.linspace(-1, 1, 21, dtype=torch.float64)
        best, width = _least(z, geometry, shifts), width / 10
    return best


def _least(z: Tensor, geometry: Geometry, shifts: Tensor) -> float:
    return min(shifts.tolist(), key=lambda shift: _mismatch(z, geometry.shifted(shift)))


def _mismatch(z: Tensor, geometry: Geometry) -> float:
    """Mean square of the difference of rays that are measured twice, over their mean square."""
    assert geometry.source is not None
    theta = torch.tensor(geometry.angles, dtype=torch.float64) % 360
    order = theta.argsort(stable=True)
    theta, z = theta[order], z[order]
    ahead = torch.cat([theta, theta[:1] + 360])
    step = float(ahead.diff().median())
    s = geometry.bins()
    gamma = torch.atan(s / geometry.source).rad2deg()
    there = (theta[:, None] + 180 - 2 * gamma) % 360
    right = torch.searchsorted(ahead, there, right=True).clamp(1, len(theta))
    left = torch.where(there < ahead[0], len(theta) - 1, right - 1)
    at = torch.where(there < ahead[0], there + 360, there)
    gap = (ahead[left + 1] - ahead[left]).clamp_min(1e-12)
    share = ((at - ahead[left]) / gap).clamp(0, 1)
    bin_ = (len(s) - 1) / 2 + geometry.shift - s / geometry.pitch
    low = bin_.floor().long()
    inside = (low >= 0) & (low < len(s) - 1)
    low = low.clamp(0, len(s) - 2)
    part = (bin_ - low).expand_as(there)
    low = low.expand_as(left)

    def value(view: Tensor) -> Tensor:
        return (1 - part) * z[view, low] + part * z[view, low + 1]

    other = (1 - share) * value(left) + share * value((left + 1) % len(theta))
    valid = inside & (gap < 2.5 * step)
    if float(valid.double().mean()) < SEEN_TWICE:
        raise InvdiffError(
            f"{100 * float(valid.double().mean()):.0f} % of the rays of this fan were measured "
            "from both sides, too few to find its axis; give --center as a number."
        )
    power = (z.square() + other.square())[valid].mean().clamp_min(1e-30)
    return float((z - other)[valid].square().mean() / power)


def direction_hint(s: Sinogram, shift: float) -> str:
    """A sentence where the views of a fan fit far better turned the other way; "" elsewhere.

    Of parallel rays the other direction shows the mirrored slice and fits as well.
    """
    if s.source is None or len(s.angles) < 4:
        return ""
    told, turned = (_residual(s, shift, sign) for sign in (1, -1))
    if turned >= BETTER * told:
        return ""
    return (
        f"the views fit better turned the other way (a residual of {turned:.2g} against "
        f"{told:.2g}): the scanner may turn clockwise; try --direction clockwise"
    )


def _residual(s: Sinogram, shift: float, sign: int) -> float:
    """|y - A x| / |y| after a few steps of least squares on coarse bins and pixels."""
    views, bins = s.integrals.shape
    chosen = torch.arange(min(views, VIEWS)) * views // min(views, VIEWS)
    join = -(-bins // COARSE)
    coarse = s.integrals[chosen][:, : bins // join * join]
    y = coarse.reshape(len(coarse), -1, join).mean(-1)[None, None]
    side = max(8, min(y.shape[-1], math.isqrt(y.numel() // 2)))
    angles = tuple(sign * s.angles[int(k)] for k in chosen)
    cut = (bins - bins // join * join) / 2  # bins lost at the right end move the middle
    rays = Geometry(angles, bins // join, join, (shift + cut) / join, s.source)
    rays = rays.rescaled(side / bins)
    if s.source is None or s.source * side / bins <= math.hypot(side, side) / 2:
        return 1.0  # within the image: no such operator
    A = Radon.of(rays, (side, side))
    x = least_squares(A, y, STEPS)
    return float((y - A(x)).norm() / y.norm().clamp_min(1e-30))
