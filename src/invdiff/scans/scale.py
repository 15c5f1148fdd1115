"""The largest attenuation of a slice: what is called 1 for a prior on [-1, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.operators.radon import Radon

STEPS = 30
"""Least-squares steps. On chest slices seen over 90 degrees, 20 to 30 of them find the bones to
10 percent, and 8 steps without the bound at 0 miss a tenth to a fifth."""
BRIGHTEST = 0.995
"""Quantile of the pixels that counts: few are brighter than the rim of bones."""
MARGIN = 1.1


def top_of_scale(y: Tensor, A: Radon, back_projection: Tensor) -> tuple[float, str]:
    """(attenuation that becomes x = 1, how it was found) for line integrals y (1, 1, views, bins).

    1.1 times the 0.995 quantile of an image. Of a complete scan that is the filtered
    back-projection, (1, H, W); of few views or a limited angle, where streaks or a missing part of
    the spectrum make that far too bright or too dark, a fit of least squares without negative
    attenuation.
    Raises InvdiffError where nothing attenuates.
    """
    complete = is_complete(A)
    image = back_projection if complete else non_negative_fit(y, A)[0]
    top = MARGIN * float(image.flatten().quantile(BRIGHTEST))
    if not 0 < top < math.inf:
        raise InvdiffError("The sinogram shows nothing that attenuates; check its kind.")
    if complete:
        return top, "from the filtered back-projection"
    return top, f"from {STEPS} steps of least squares, for {_incomplete(A)}"


def is_complete(A: Radon) -> bool:
    """Whether filtered back-projection is an image: all directions, and a view for two bins."""
    return seen(A) > 0.95 and 2 * len(A.angles) >= A.detectors


def seen(A: Radon) -> float:
    """Share of the directions that were measured: of 180 degrees, or of a fan's 360."""
    if len(A.angles) < 2:
        return 0.0
    return float(A.geometry.arcs().sum()) / math.pi


def _incomplete(A: Radon) -> str:
    share, turn = seen(A), 180 if A.source is None else 360
    if share <= 0.95:
        return f"the views show {share * turn:.0f} of {turn} degrees"
    return f"{len(A.angles)} views of {A.detectors} bins are few"


def non_negative_fit(y: Tensor, A: Radon, steps: int = STEPS) -> Tensor:
    """A few steps towards the least |y - A x|^2 over x >= 0, (1, 1, H, W).

    Beck and Teboulle 2009, SIAM J. Imaging Sciences 2, 183 (FISTA), with the projection on x >= 0.
    """
    rate = 1 / float(A.norm((1, *A.size))) ** 2
    x = torch.zeros(1, 1, *A.size, dtype=y.dtype, device=y.device)
    ahead, t = x, 1.0
    for _ in range(steps):
        new = (ahead + rate * A.adjoint(y - A(ahead))).clamp_min(0)
        further = (1 + math.sqrt(1 + 4 * t * t)) / 2
        ahead, x, t = new + ((t - 1) / further) * (new - x), new, further
    return x
