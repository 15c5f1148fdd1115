"""The exact posterior of a normal mixture under a linear measurement, by dense algebra."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.noise import GaussianNoise
from invdiff.operators.algebra import Linear, Operator
from invdiff.operators.algebra.compose import Affine
from invdiff.problem import Problem
from invdiff.problem.whiten import whiten


def matrix(A: Operator, x_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A(x) = M x + b as (M, b), shapes (m, n) and (m,), float64 on the CPU.

    x and y are flattened; a complex y becomes pairs of real numbers.
    Raises InvdiffError when A is not linear (or linear with an offset).
    """
    if not isinstance(A, Linear | Affine):
        raise InvdiffError(
            f"An exact posterior needs a linear operator, and {type(A).__name__} is none."
        )
    n = math.prod(x_shape)
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *x_shape)
    columns = torch.cat([torch.zeros_like(eye[:1]), eye])
    rows = real_rows(A.to("cpu", torch.float64)(columns))
    return (rows[1:] - rows[0]).mT.contiguous(), rows[0]


def real_rows(y: Tensor) -> Tensor:
    """Measurements (B, ...), real or complex, as real vectors (B, m), float64 on the CPU."""
    y = torch.view_as_real(y.resolve_conj()) if y.is_complex() else y
    return y.cpu().double().flatten(1)


def condition(
    weights: Tensor, means: Tensor, covs: Tensor, problem: Problem
) -> tuple[Tensor, Tensor, Tensor]:
    """The law of x0 given y = A x0 + sigma n, where x0 ~ sum_k w_k N(mean_k, cov_k).

    weights: (K,), sum 1. means: (K, n). covs: (K or 1, n, n). All float64 on the CPU.
    Returns the same three of the posterior:
      w_k N(y; A mean_k, S_k) / sum,  mean_k + G_k (y - A mean_k),  (I - G_k A) cov_k
    with S_k = A cov_k A^T + sigma^2 and G_k = cov_k A^T S_k^+ (Bishop 2006, section 2.3.3).
    Gaussian noise that is not white is whitened first.
    Raises InvdiffError unless problem is one measurement with Gaussian noise by a linear operator,
    and for a noiseless y that no component can have made.
    """
    problem = whiten(problem)
    if problem.batch != 1 or not isinstance(problem.noise, GaussianNoise):
        raise InvdiffError(
            "An exact posterior needs one measurement with Gaussian noise, found "
            f"{problem.batch} with {type(problem.noise).__name__} noise."
        )
    M, b = matrix(problem.A, problem.x_shape)
    variance = problem.noise.sigma**2
    predicted = means @ M.mT + b
    residual = real_rows(problem.y) - predicted
    MC = M @ covs
    e, U = torch.linalg.eigh(MC @ M.mT + variance * torch.eye(len(M), dtype=torch.float64))
    seen = e > len(M) * torch.finfo(torch.float64).eps * e.amax(1, keepdim=True)
    r = _each(U.mT, residual)
    if variance == 0:
        size = len(M) * (real_rows(problem.y).norm() + predicted.norm(dim=1))
        weights = torch.where(_possible(r, seen, size, problem.y), weights, 0.0)
        r = torch.where(seen, r, 0.0)
    e = torch.where(seen, e, variance or 1.0)
    log_w = weights.log() - 0.5 * (r.square() / e + e.log()).sum(1)
    gain = MC.mT @ (U * torch.where(seen, 1 / e, 0.0)[:, None, :]) @ U.mT
    rest = torch.eye(M.shape[1], dtype=torch.float64) - gain @ M
    new = rest @ covs @ rest.mT + variance * gain @ gain.mT
    return torch.softmax(log_w, 0), means + _each(gain, residual), (new + new.mT) / 2


def _each(matrices: Tensor, vectors: Tensor) -> Tensor:
    """matrices[k] @ vectors[k], (K or 1, i, j) and (K, j) to (K, i)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _possible(r: Tensor, seen: Tensor, size: Tensor, y: Tensor) -> Tensor:
    """Which components can have made a noiseless y, (K,): those that leave nothing unexplained.

    The residual r (K, m) outside the range may be the round-off of y's own dtype times size (K,).
    """
    if bool((seen.sum(1) != seen.sum(1)[0]).any()):
        raise InvdiffError(
            "Components of different rank cannot be weighed without noise; give a sigma above 0."
        )
    unexplained = torch.where(seen, 0.0, r).norm(dim=1)
    possible = unexplained <= torch.finfo(y.dtype).eps * size
    if not bool(possible.any()):
        raise InvdiffError("No image of this prior gives this measurement without noise.")
    return possible
