"""Normal laws of an image given y, which several solvers draw from or begin with."""

from __future__ import annotations

import math

from torch import Tensor

from invdiff.core import Problem, batch_dot
from invdiff.operators.krylov import conjugate_gradients
from invdiff.priors.base import Prior
from invdiff.priors.spectrum import Covariance, isotropic

UNKNOWN = 20.0
"""Noise level at which nothing is known of x0: V is then the covariance of images themselves."""


def covariance(prior: Prior, sigma: float, x0: Tensor, local: bool) -> Covariance:
    """V of the prior at a level, around denoised images x0; the mean of photographs' unless
    measured."""
    return (prior.spectrum or isotropic()).at(sigma, x0, local)


def weights(r: Tensor, V: Covariance, problem: Problem, iterations: int, enough: float) -> Tensor:
    """(sigma_y^2 I + A V A^T)^-1 r, shape of y, by conjugate gradients in the space of y.

    enough: what may be left of r, in root mean square.
    """
    A, variance = problem.linear, problem.sigma_y**2
    return conjugate_gradients(
        lambda w: variance * w + A(V(A.adjoint(w))), r, iterations, enough=enough
    )


def first_mean(problem: Problem, prior: Prior, iterations: int, enough: float) -> Tensor:
    """E[x0 | y] of a normal law about the middle of the prior's range with V at UNKNOWN.

    It fills what was not measured by the correlation of images: a start for any linear A.
    """
    like = problem.x_like
    V = covariance(prior, UNKNOWN, 0.0 * like.fill_(0), False)
    return V(problem.linear.adjoint(weights(problem.y, V, problem, iterations, enough)))


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
