"""One correction, many names: the mean of N(x0, V) after a linear-Gaussian measurement."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from invdiff.core import Problem
from invdiff.operators.base import conjugate_gradients


def posterior_mean(
    x0: Tensor, problem: Problem, V: Callable[[Tensor], Tensor], iterations: int
) -> Tensor:
    """x0 + V A^T (sigma_y^2 + A V A^T)^-1 (y - A x0), by `iterations` of conjugate gradients.

    x0: mean of the Gaussian q(x0 | x_t), (B, ...). V: applies its covariance to an image; it
    should be symmetric and positive semidefinite. The choice of V makes the method: the denoiser's
    own covariance (MMPS), a multiple of the identity (DiffPIR, DDS).
    """
    A, sigma_y = problem.linear, problem.sigma_y

    def covariance(u: Tensor) -> Tensor:
        return sigma_y**2 * u + A(V(A.adjoint(u)))

    u = conjugate_gradients(covariance, problem.residual(x0), iterations)
    return x0 + V(A.adjoint(u))
