"""Normal laws of an image given y, which several solvers draw from or begin with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import batch_dot
from invdiff.operators.algebra.krylov import conjugate_gradients
from invdiff.operators.algebra.linear import Compact
from invdiff.priors.base import Prior
from invdiff.priors.modes import Covariance, from_modes, to_modes
from invdiff.priors.spectrum import isotropic
from invdiff.problem import Problem

UNKNOWN = 20.0
"""Noise level, in half ranges of images, at which nothing is known of x0: V is then the covariance
of images themselves."""

Kind = Literal["local", "spectral", "isotropic"]
"""What is taken of V: the spectrum and where edges are, the spectrum, or the mean alone."""


def middle_and_half(prior: Prior) -> tuple[float, float]:
    """(middle, half) of the range of images; (0, 1) where it has no end."""
    low, high = prior.value_range
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    return (low + high) / 2, (high - low) / 2


def covariance(prior: Prior, sigma: float, x0: Tensor, kind: Kind) -> Covariance:
    """V of the prior at a level, around denoised images x0; that of photographs unless measured."""
    spectrum = prior.spectrum or isotropic(middle_and_half(prior)[1])
    V = spectrum.at(sigma, x0, kind == "local")
    return V.averaged() if kind == "isotropic" else V


ROUNDED = 10
"""Round-offs of y that r = y - A x has: a Fourier transform makes some log2 of its length."""


def weights(
    r: Tensor,
    V: Covariance,
    problem: Problem,
    iterations: int,
    enough: float,
    modes: bool = False,
) -> Tensor:
    """(sigma_y^2 I + A V A^T)^-1 r, shape of y, by conjugate gradients in the space of y.

    modes: whether they are preconditioned in cosine modes, where A tells its `cosine_power`.
    enough: what may be left of r, in root mean square; with modes `FURTHER` of it. Without noise,
    no more is asked for than r is worth: it is a difference of numbers of the size of y, and has
    round-off that no image explains.
    """
    A, variance, rounding = problem.linear, problem.sigma_y**2, None
    inverse = _in_modes(V, problem) if modes else None
    if inverse is not None:
        r = A.restrict(r)  # noise may have been drawn where nothing was measured
        enough = FURTHER * enough
    small = (None if inverse else A.compact(r)) or Compact(A, A.adjoint, _same, _same)
    if not variance:
        y = small.to(problem.y)
        size = (batch_dot(y, y).double() / y[0].numel()).sqrt()
        rounding = ROUNDED * torch.finfo(r.dtype).eps * size
    w = conjugate_gradients(
        lambda w: variance * w + small.forward(V(small.adjoint(w))),
        small.to(r),
        iterations,
        enough=enough,
        rounding=rounding,
        precondition=inverse,
    )
    return small.back(w)


def _same(y: Tensor) -> Tensor:
    return y


FURTHER = 0.4
"""How much less of r is left where a preconditioner makes it fall evenly: what remains is then of
strong modes too, whose error counts most. It was chosen on one photograph, blurred in 3 ways."""
LEAST = 1e-6
"""Smallest gain of a mode that divides, over the largest: what is below is round-off."""


def _in_modes(V: Covariance, problem: Problem) -> Callable[[Tensor], Tensor] | None:
    """r -> an approximation of (sigma_y^2 I + A V A^T)^-1 r that is diagonal in cosine modes; where
    values of y were not measured, the part of such a map on those that were.

    V is taken to be the same everywhere, by the geometric mean of its S. None where A tells
    nothing.
    """
    A = problem.linear
    power = A.cosine_power(V.diagonal)
    if power is None:
        return None
    if V.factors is not None:
        size = V.factors.flatten(1).log().mean(1).exp()
        power = size.reshape(-1, 1, 1, 1) * power
    gain = problem.sigma_y**2 + power
    gain = gain.maximum(LEAST * gain.amax((1, 2, 3), keepdim=True))
    return lambda r: A.restrict(from_modes(to_modes(r) / gain, r.shape))


def first_mean(
    problem: Problem, prior: Prior, iterations: int, enough: float, modes: bool = False
) -> Tensor:
    """E[x0 | y] of a normal law about the middle of the prior's range with V at UNKNOWN.

    It fills what was not measured by the correlation of images: a start for any linear A.
    """
    middle, half = middle_and_half(prior)
    x = torch.full_like(problem.x_like, middle)
    V = covariance(prior, UNKNOWN * half, x, "spectral")
    w = weights(problem.residual(x), V, problem, iterations, enough, modes)
    return x + V(problem.linear.adjoint(w))


def own_size(noise: Tensor, V: Covariance, sigma: float, spread: float) -> Tensor:
    """Size of V for each sample, (B, 1, ...), from E |x - D|^2 = n sigma^2 - tr V.

    noise: x - D. The estimate has a standard error; it counts as far as that is below spread, by
    which images differ: the mean of 1 and of the estimate, weighted by their precisions, between
    1/4 and 4.
    """
    n = noise[0].numel()
    found = (sigma**2 - batch_dot(noise, noise) / n) / V.mean
    error = math.sqrt(2 / n) * sigma**2 / V.mean
    share = spread**2 / (spread**2 + error**2)
    return (1 + share * (found - 1)).clamp(0.25, 4.0)


def seen_size(r: Tensor, Ae: Tensor, problem: Problem, spread: float) -> Tensor:
    """Size of V for each sample, (B, 1, ...), from E |y - A D|^2 = m sigma_y^2 + tr A V A^T.

    r: y - A D. Ae: A e of an e of N(0, V), whose square estimates the trace. It counts as far as
    `own_size` tells, between 1 and 16: y shows where D is wrong by more than is usual, as a prior
    of many modes is now and then. Where it is less wrong is left as it is, for what y does not see
    may still be unsure.
    """
    seen = problem.A.restrict(torch.ones_like(r)).flatten(1)
    m = (seen != 0).sum(1).clamp_min(1) * (2 if r.is_complex() else 1)
    usual = (batch_dot(Ae, Ae).flatten() / m).clamp_min(torch.finfo(seen.real.dtype).tiny)
    found = batch_dot(r, r).flatten() / m - problem.sigma_y**2
    error = (2 / m).sqrt() * (problem.sigma_y**2 + usual) / usual
    share = spread**2 / (spread**2 + error**2)
    size = (1 + share * (found / usual - 1)).clamp(1.0, 16.0)
    return size.reshape(-1, *[1] * (problem.x_like.ndim - 1)).to(problem.x_like)


def truncated_normal(mean: Tensor, std: Tensor, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """The normal law cut to [low, high], at the share u in (0, 1) of its mass; float64.

    By inversion in the lower tail; beyond 30 deviations the tail is exponential.
    """
    a, b = (low - mean) / std, (high - mean) / std
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    u = torch.where(flip, 1 - u, u)
    pa, pb = _below(a), _below(b)
    inner = torch.special.ndtri((pa + u * (pb - pa)).clamp(1e-300, 1 - 1e-16))
    rate = b.abs().clamp_min(1.0)
    far = b + torch.log(u + (1 - u) * torch.exp(-rate * (b - a))) / rate
    z = torch.where(b < -30, far, inner)
    z = torch.minimum(torch.maximum(z, a), b)
    return mean + std * torch.where(flip, -z, z)


def _below(x: Tensor) -> Tensor:
    """The normal distribution function, with its lower tail: torch.special.ndtr has none."""
    return 0.5 * torch.erfc(-x / math.sqrt(2))


def saturated(y: Tensor, value_range: tuple[float, float]) -> Tensor:
    """+1 where y is at the upper end of the range, -1 at the lower one, else 0: shape of y.

    A file keeps no value beyond black and white: there y is only known to have been at least so
    far. Where any value of a row lies beyond, nothing was clipped.
    """
    low, high = value_range
    slack = 1e-6 * (high - low)
    at = (y >= high - slack).to(y) - (y <= low + slack).to(y)
    beyond = ((y > high + slack) | (y < low - slack)).flatten(1).any(1)
    return at * ~beyond.reshape(-1, *[1] * (y.ndim - 1))


def unsaturated(y: Tensor, at: Tensor, mean: Tensor, std: float, u: Tensor | None) -> Tensor:
    """y with values that were clipped (`saturated`) taken from N(mean, std^2) beyond where y is.

    u: shares in (0, 1) at which they are drawn; None takes their mean.
    """
    clipped = at != 0
    end = at[clipped]
    distance = (end * (mean[clipped] - y[clipped])).double()  # how far the mean lies beyond it
    if u is None:
        t = -distance / std
        hazard = torch.exp(-t.square() / 2) / (
            math.sqrt(2 * math.pi) * _below(-t).clamp_min(1e-300)
        )
        beyond = distance + std * torch.where(t > 30, t + 1 / t.clamp_min(1), hazard)
    else:
        ends = torch.zeros_like(distance), torch.full_like(distance, 40 * std)
        spread = torch.full_like(distance, std)
        beyond = truncated_normal(distance, spread, *ends, u[clipped].double())
    found = y.clone()
    found[clipped] += end * beyond.to(y)
    return found
