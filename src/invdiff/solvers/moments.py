"""N(x0, V) after a linear-Gaussian measurement: its mean for any V, its draws for a white one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from invdiff.core import Level, batch_dot
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
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


MOST_NUMBERS = 256
"""Measured numbers up to which A V A^T is made whole, at one gradient for each of them."""


def real(y: Tensor) -> Tensor:
    """Measurements (B, ...) as real vectors (B, m); a complex number becomes two real ones."""
    return (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).flatten(1)


def unreal(rows: Tensor, like: Tensor) -> Tensor:
    """Measurements of the shape of like, from what `real` made of them."""
    if like.is_complex():
        return torch.view_as_complex(rows.reshape(*like.shape, 2))
    return rows.reshape(like.shape)


def measured_numbers(problem: Problem) -> Tensor:
    """Which entries of `real(y)` were measured in any row: their indices, (m,)."""
    y = problem.y
    ones = torch.ones_like(real(y))
    return (real(problem.A.restrict(unreal(ones, y))) != 0).any(0).nonzero()[:, 0]


@dataclass(frozen=True)
class Seen:
    """The law N(A x0, S) of y, S = sigma_y^2 I + A V A^T, at y: what a twisted step takes of it.

    mean: x0 + V A^T S^-1 (y - A x0). log_p: of y, (B,), float64, up to a constant.
    """

    mean: Tensor
    log_p: Tensor


def seen_whole(x0: Tensor, problem: Problem, V: Callable[[Tensor], Tensor]) -> Seen:
    """By A V A^T as a matrix: one application of V for each number of y, and one more.

    The matrix is made symmetric, and its eigenvalues at least 0: V of a network may be neither.
    """
    A, r = problem.linear, problem.residual(x0)
    flat, index = real(r), measured_numbers(problem)
    columns = []
    for j in index.tolist():
        unit = torch.zeros_like(flat)
        unit[:, j] = 1.0
        columns.append(real(A(V(A.adjoint(unreal(unit, r)))))[:, index].double())
    S = torch.stack(columns, dim=2)
    e, U = torch.linalg.eigh((S + S.mT) / 2)
    e = e.clamp_min(0.0) + problem.sigma_y**2
    known = flat[:, index].double()
    w = (U @ ((U.mT @ known[:, :, None])[:, :, 0] / e)[:, :, None])[:, :, 0]
    log_p = -0.5 * ((known * w).sum(1) + e.log().sum(1))
    weights = torch.zeros_like(flat)
    weights[:, index] = w.to(flat.dtype)
    return Seen(x0 + V(A.adjoint(unreal(weights, r))), log_p)


def seen_white(x0: Tensor, problem: Problem, variance: float) -> tuple[Tensor, Tensor]:
    """For V = variance I: A^T S^-1 (y - A x0), an image, and `Seen.log_p`.

    S is the same for all rows of a measurement, and so is its determinant, which is left out.
    """
    A, r = problem.linear, problem.residual(x0)
    back = A.ridge(r, problem.sigma_y**2 / variance)
    left = real(problem.A.restrict(r - A(back))).double()  # sigma_y^2 S^-1 r
    log_p = -0.5 * (real(r).double() * left).sum(1) / problem.sigma_y**2
    return back / variance, log_p


def within_reach(d: Tensor, r: Tensor, back: Tensor, share: float, reach: float) -> Tensor:
    """A step d of x0, cut where `share` of it goes beyond `reach` |r|^2 / <r, A d>, which fits y
    along r = y - A x0. back: A^T r."""
    moved = share * batch_dot(back, d)
    longest = reach * batch_dot(r, r).reshape(moved.shape)
    return torch.where(moved > longest, longest / moved, 1.0) * d


def white_variance(sigma: float, data_std: float) -> float:
    """Variance of x0 given x0 + sigma eps, for white normal images of deviation data_std."""
    return 1 / (1 / sigma**2 + 1 / data_std**2)


def analytic_std(level: Level, to: Level, data_std: float) -> float:
    """Deviation of x' given x_t over that of the ancestral kernel, which leaves out that x0 is not
    known: ((v + (1 - k)^2 c) / v)^1/2, k = sigma'^2 / sigma^2, v = sigma'^2 (1 - k), c the
    variance of x0 given x_t of `white_variance`.

    Bao, Li, Zhu, Zhang 2022, "Analytic-DPM", arXiv 2201.06503, Theorem 1: the variance that makes
    the reverse kernel closest to the true one, and the true one of white normal images.
    """
    share = 1 - (to.sigma / level.sigma) ** 2
    return math.sqrt(1 + share * white_variance(level.sigma, data_std) / to.sigma**2)


def normal_draw(z: Tensor, V: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
    """V^1/2 z of white noise z, an image: a draw of N(0, V), by `iterations` applications of V.

    V^1/2 is taken in the Krylov space z, V z, ... of so many dimensions (Chow, Saad 2014, arXiv
    1207.5113, section 3, with Arnoldi's basis). The draw has the square z^T V z, so that the
    trace is right from the first iteration on; with n of them the law is N(0, V). V is made
    symmetric in that space, and its eigenvalues at least 0: that of a network may be neither.
    """
    size = batch_dot(z, z).sqrt()
    q, basis, images = _unit(z, size), list[Tensor](), list[Tensor]()
    for _ in range(iterations):
        w = V(q)
        basis.append(q)
        images.append(w)
        for p in (*basis, *basis):  # twice: once is not enough in floating point
            w = w - batch_dot(p, w) * p
        q = _unit(w, batch_dot(w, w).sqrt())
    H = torch.stack([torch.stack([_number(p, w) for w in images], 1) for p in basis], 1)
    e, U = torch.linalg.eigh((H + H.mT) / 2)
    root = (U * (e.clamp_min(0.0).sqrt() * U[:, 0])[:, None]).sum(2)  # H^1/2 e_1, (B, iterations)
    shares = (root * size.double().flatten()[:, None]).to(z)
    return sum(
        (shares[:, j].reshape(size.shape) * p for j, p in enumerate(basis)), torch.zeros_like(z)
    )


def _unit(w: Tensor, size: Tensor) -> Tensor:
    """w / size; 0 where that is 0."""
    return w / torch.where(size > 0, size, 1.0)


def _number(p: Tensor, w: Tensor) -> Tensor:
    """Inner products of samples, (B,), float64."""
    return batch_dot(p.double(), w.double()).flatten()


def posterior_draw(like: Tensor, problem: Problem, variance: float, rng: Rng) -> Tensor:
    """x0 minus its mean, x0 ~ N(., variance I) given y: an image of the shape of like.

    A draw e of the law and one of the noise; then the mean's rule takes from e what y would have
    told of it. Neither the mean nor y enters.
    """
    A, sigma_y = problem.linear, problem.sigma_y
    e = math.sqrt(variance) * rng.normal(like, "x0")
    r = GaussianNoise(sigma_y).sample(torch.zeros_like(problem.y), rng) - A(e)
    return e + (A.ridge(r, sigma_y**2 / variance) if sigma_y else A.pinv(r))
