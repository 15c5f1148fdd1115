"""N(x0, V) after a linear-Gaussian measurement: its mean for any V, its draws for a white one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.noise import Gaussian
from invdiff.operators.algebra.krylov import conjugate_gradients, gmres
from invdiff.problem import Problem

Krylov = Literal["cg", "gmres"]


def posterior_mean(
    x0: Tensor,
    problem: Problem,
    V: Callable[[Tensor], Tensor],
    iterations: int,
    krylov: Krylov = "cg",
) -> Tensor:
    """x0 + V A^T (sigma_y^2 + A V A^T)^-1 (y - A x0), by `iterations` of a Krylov method.

    x0: mean of the Gaussian q(x0 | x_t), (B, ...). V: applies its covariance to an image: that of
    the denoiser in MMPS. For a multiple of the identity this is `Linear.ridge`. krylov: "cg" wants
    a symmetric, positive semidefinite V; "gmres" does not.
    """
    A, sigma_y = problem.linear, problem.sigma_y

    def covariance(u: Tensor) -> Tensor:
        return sigma_y**2 * u + A(V(A.adjoint(u)))

    solve = {"cg": conjugate_gradients, "gmres": gmres}[krylov]
    u = solve(covariance, problem.residual(x0), iterations)
    return x0 + V(A.adjoint(u))


def white_variance(sigma: float, data_std: float) -> float:
    """Variance of x0 given x0 + sigma eps, for white normal images of deviation data_std."""
    return 1 / (1 / sigma**2 + 1 / data_std**2)


def posterior_draw(like: Tensor, problem: Problem, variance: float, rng: Rng) -> Tensor:
    """x0 minus its mean, x0 ~ N(., variance I) given y: an image of the shape of like.

    A draw e of the law and one of the noise; then the mean's rule takes from e what y would have
    told of it. Neither the mean nor y enters.
    """
    A, sigma_y = problem.linear, problem.sigma_y
    e = math.sqrt(variance) * rng.normal(like, "x0")
    r = Gaussian(sigma_y).sample(torch.zeros_like(problem.y), rng) - A(e)
    return e + (A.ridge(r, sigma_y**2 / variance) if sigma_y else A.pinv(r))
