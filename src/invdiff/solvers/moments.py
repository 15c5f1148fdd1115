"""The mean of N(x0, V) after a linear-Gaussian measurement, for V of any form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from invdiff.core import Problem
from invdiff.operators.krylov import conjugate_gradients, gmres

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
