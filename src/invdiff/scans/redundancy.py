"""The noise of several coils, from what they measured and no image explains."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.noise.estimate import Estimate, noise_from_kspace
from invdiff.operators.mri import Sense
from invdiff.scans.kspace import KSpace, radius

SHIFT = 0.005
"""Weight of the identity in SENSE: small, so that little signal is left in the residual."""
ITERATIONS = 60
LEAST = 0.05
"""Share of the noise that must be left in the residual for a level to be found from it."""


def noise_from_coils(k: KSpace, maps: Tensor, share: float = 0.25) -> Estimate:
    """Noise level per real part, from the residual of SENSE (without a prior).

    With H = A (A^H A + shift)^-1 A^H the residual is (I - H) y: of noise of level sigma it has the
    power sigma^2 |(I - H) n|^2, n of level 1, which is measured by passing such n through the same
    steps. A least-squares fit has many degrees of freedom, so its residual is smaller than the
    noise by this, and no sign of a level that was too large. Signal at the rim of k-space, which
    `noise_from_kspace` counts as noise, is explained by the image here.

    maps: sensitivities (coils, H, W). share: of the samples, those farthest from the centre, where
    errors of the maps matter least. What they leave counts as noise.
    Raises InvdiffError where less than 5 % of noise is left, as the coils are too few for the
    acceleration.
    """
    if not 0 < share <= 1:
        raise InvdiffError(f"The outermost samples are a share in (0, 1], found {share}.")
    A = Sense(maps[None].to(k.data.dtype), k.sampling, cg_iterations=ITERATIONS)

    def residual(y: Tensor) -> Tensor:
        return y - A(A.solve(A.adjoint(y), SHIFT))

    far = radius(k.mask)
    outer = k.mask & (far >= far[k.mask].quantile(1 - share))

    def power(y: Tensor) -> float:
        return float(torch.view_as_real(y[0][:, outer]).double().square().mean())

    n = A.restrict(GaussianNoise(1.0).sample(torch.zeros_like(k.y), Rng.of(0)))
    left = power(residual(n)) / power(n)
    if left < LEAST:
        raise InvdiffError(
            f"{len(maps)} coils at an acceleration of {k.acceleration:.1f} leave {left:.1%} of the "
            "noise in what no image explains, too little to find its level from; give it."
        )
    count = 2 * len(maps) * int(outer.sum())
    sigma = math.sqrt(power(residual(k.y)) / left)
    how = (
        f"what {len(maps)} coils show in the outermost {share:.0%} of the samples and no image "
        f"explains, {left:.0%} of the noise"
    )
    # both powers are of about left * count numbers
    return Estimate(sigma, math.sqrt(1 / (left * count)), how)


def level_of(k: KSpace, maps: Tensor | None, whole: Tensor) -> tuple[float, str]:
    """The smaller of two estimates, and where it comes from.

    They are of the rim of all k-space, `whole` (coils, H, W), and of the coils, where there are
    maps. Raises InvdiffError where there are too few samples for either.
    """
    found, failed = list[tuple[float, str]](), ""
    try:
        found.append((noise_from_kspace(whole).sigma, "an estimate from the outermost samples"))
    except InvdiffError as error:
        failed = str(error).rstrip(".")
    if maps is not None:
        with contextlib.suppress(InvdiffError):  # too few coils: the rim is all there is
            coils = noise_from_coils(k, maps)
            found.append((coils.sigma, f"from {coils.how}"))
    if not found:
        raise InvdiffError(f"{failed}; give --noise with its level.")
    return min(found)
