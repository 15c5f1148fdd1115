"""From the measurement of a scanner to a Problem on a prior's scale, and what undoes that scale."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import DiagonalGaussian, GaussianNoise
from invdiff.operators.algebra import Linear
from invdiff.operators.inpaint import Inpaint
from invdiff.operators.radon import Radon
from invdiff.operators.tomography import fbp
from invdiff.priors.units import HU_WINDOW
from invdiff.problem import Problem
from invdiff.problem.whiten import whiten
from invdiff.scans.scale import top_of_scale
from invdiff.scans.sinogram import Sinogram

ITERATIONS = 20
"""Bound on the conjugate gradients of a CT problem; weights of rays make its spectrum wider."""

# ----------------------------------------------------------------------------------------------- CT


@dataclass(frozen=True, eq=False)
class CT:
    """A problem for a prior on [-1, 1], with an operator of norm 1, for which samplers are tuned.

    low, high: values of x = -1 and x = 1, in `units`. first: filtered back-projection in these
    units, (1, H, W). sigma: the typical noise of a line integral. how: where it comes from.
    scale: where `high` comes from.
    """

    problem: Problem
    low: float
    high: float
    units: str
    first: Tensor
    sigma: float
    how: str
    scale: str = ""

    def to_x(self, values: Tensor) -> Tensor:
        """Values in `units` to x."""
        return 2 * (values - self.low) / (self.high - self.low) - 1


def ct_problem(
    s: Sinogram,
    A: Radon,
    water: float | None = None,
    sigma: float | None = None,
    views: int | None = None,
    iterations: int | None = None,
    equal: bool = False,
    top: float | None = None,
) -> CT:
    """The problem of reconstructing a slice from a sinogram.

    A: the geometry, of all views, for images of attenuation; `pixel` is its unit of length.
    water: attenuation of water per unit of length: then values are Hounsfield units. Without it
    they are attenuation, from 0 to `top`: just above the brightest of the slice (`top_of_scale`),
    unless it is told.
    sigma: noise of the line integrals, the same for all; None takes for each ray that of its
    photons, or where there are no counts what the finest differences along the detector show.
    equal: without sigma, all rays have the noise that they have on average.
    views: use so many of them, in equal steps. iterations: bound for every solve and pinv;
    None takes ITERATIONS, and twice as many where rays have noise of their own.
    Bins that are not trusted are left out of the measurement.
    """
    reference = fbp(s.y, A)[0]
    if water is not None and not 0 < water < math.inf:
        raise InvdiffError(f"The attenuation of water is a number above 0, found {water}.")
    bottom, top, scale = _scale(s, A, reference, water, top)
    low, high = (bottom, top) if water is None else HU_WINDOW
    units = "attenuation per length" if water is None else "HU"
    if views is not None:
        count = len(A.angles)
        if not 0 < views <= count:
            raise InvdiffError(f"The file has {count} views; from 1 to {count} can be used.")
        chosen = torch.arange(views) * count // views
        s, A = s.views(chosen), dataclasses.replace(A, angles=A.geometry.views(chosen).angles)
        reference = fbp(s.y, A)[0]
    level, how = _noise(s, sigma)
    mask = None if bool(s.trusted.all()) else Inpaint(s.trusted[None, None])
    rays = sigma is None and not equal and s.variance is not None
    iterations = iterations or ITERATIONS * (2 if rays else 1)
    problem = on_unit_norm(s.y, A, bottom, top, level, mask, iterations)
    if rays:
        problem, how = _weighted(problem, s), f"on average; {_spread(s)}, from its photons"
    first = low + (reference - bottom) * ((high - low) / (top - bottom))
    return CT(problem, low, high, units, first, level, how, scale)


def _scale(
    s: Sinogram, A: Radon, reference: Tensor, water: float | None, top: float | None
) -> tuple[float, float, str]:
    """Attenuation at x = -1 and at x = 1, and how it was found."""
    if water is not None:
        if top is not None:
            raise InvdiffError(
                "With the attenuation of water the scale is that of Hounsfield units; leave "
                "--water or --top out."
            )
        low, high = (water * (1 + hu / 1000) for hu in HU_WINDOW)
        return low, high, "by the attenuation of water"
    if top is None:
        return 0.0, *top_of_scale(s.y, A, reference)
    if not 0 < top < math.inf:
        raise InvdiffError(f"The top of the scale is an attenuation above 0, found {top}.")
    return 0.0, top, "as given"


def on_unit_norm(
    y: Tensor,
    A: Radon,
    bottom: float,
    top: float,
    sigma: float,
    mask: Inpaint | None = None,
    iterations: int = ITERATIONS,
) -> Problem:
    """Line integrals y = A(attenuation) + noise as a problem in x, with an operator of norm 1.

    bottom, top: attenuation at x = -1 and x = 1. sigma: noise of y. mask: of the rays that count.
    Step sizes of samplers are meant for that norm. iterations: bound for every solve and pinv.
    """
    half = (top - bottom) / 2
    offset = A(torch.full((1, 1, *A.size), bottom + half))
    unit = 1 / A.norm((1, *A.size))
    scaled: Linear = dataclasses.replace(A, pixel=A.pixel * unit, cg_iterations=iterations)
    if mask is not None:
        scaled = cast(Linear, mask @ scaled)
    return Problem(
        (y - offset) * (unit / half), scaled, GaussianNoise(sigma * unit / half), (1, *A.size)
    )


def _weighted(problem: Problem, s: Sinogram) -> Problem:
    """The problem with the noise of each ray; whitened, its operator has norm 1 again."""
    assert s.variance is not None
    level = problem.sigma_y / float(s.variance[s.trusted].mean().sqrt())
    sigmas = torch.where(s.trusted, level * s.variance.sqrt(), math.inf)[None, None]
    noise = DiagonalGaussian(sigmas)
    white = whiten(dataclasses.replace(problem, noise=noise))
    gain = white.linear.norm(problem.x_shape)
    return dataclasses.replace(problem, noise=DiagonalGaussian(sigmas, level=noise.level / gain))


def _spread(s: Sinogram) -> str:
    """The range of the noise of the rays, in words."""
    assert s.variance is not None
    each = s.variance[s.trusted].sqrt()
    return f"each ray its own, {float(each.min()):.2g} to {float(each.max()):.2g}"


def _noise(s: Sinogram, sigma: float | None) -> tuple[float, str]:
    """Typical noise of the line integrals, and where it comes from."""
    if sigma is not None:
        return GaussianNoise(sigma).sigma, "as given"
    if s.variance is not None:
        return float(s.variance[s.trusted].mean().sqrt()), "of the photons, on average"
    z = s.integrals
    if z.shape[1] < 8:
        raise InvdiffError("There are too few bins to estimate the noise; give --noise.")
    detail = (z[:, 1:-1] - (z[:, :-2] + z[:, 2:]) / 2).abs()
    level = float(detail.median()) / (0.6745 * math.sqrt(1.5))
    return level, "an estimate from the finest differences along the detector"
