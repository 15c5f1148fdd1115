"""How far a solver's samples are from a posterior that is known exactly.

The problems are those of GMM-25 (`gmm25.py`): up to 25 far-apart modes, 1 to 4 measurements. The
distance of two clouds of samples is sliced Wasserstein-1 in R^d. Two references give it a meaning:
`floor`, the distance of two exact clouds of the same size, and the unconditional sampler, which is
what it costs to ignore the measurement.

Solvers for noiseless data are given noiseless measurements, and are compared with the posterior of
these. Those that work coordinate by coordinate (Adam) are measured in the coordinates in which the
problem is posed, which are not those of the literature: read their figures as another problem's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from invdiff.audit.gmm25 import GMM25, gmm25_problem
from invdiff.core import Problem
from invdiff.needs import Need, missing
from invdiff.noise import NOISELESS
from invdiff.operators.base import Identity
from invdiff.operators.latent import Autoencoder, decoded
from invdiff.run import solve
from invdiff.solvers.base import Solver

CELLS = ((8, 4), (80, 2))
"""Dimension and number of measurements of the problems that are reported."""
UNCHANGED = Autoencoder(Identity(), Identity())


def posed_for(solver: Solver, cell: GMM25) -> Problem | None:
    """The cell's problem, without noise where the solver wants none; None where it cannot.

    For a solver of latents it is the same problem behind an autoencoder that changes nothing.
    """
    p = cell.problem
    if Need.AUTOENCODER in solver.needs:
        p = Problem(p.y, decoded(p.A, UNCHANGED), p.noise, p.x_shape)
    if missing(solver, p, cell.prior):
        truth = cell.prior.sample(1, 77)
        p = Problem(p.A(truth), p.A, NOISELESS, p.x_shape)
    return None if missing(solver, p, cell.prior) else p


def clouds(solver: Solver, problem: Problem, cell: GMM25, count: int, size: int) -> list[Tensor]:
    """`count` clouds of `size` samples each, (size, *x_shape)."""
    samples = solve(problem, cell.prior, solver, samples=count * size).samples[0]
    return list(torch.split(samples, size))


def exact_clouds(problem: Problem, cell: GMM25, count: int, size: int, seed: int) -> list[Tensor]:
    """The same of the exact posterior of the problem; each cloud has its own seed."""
    posterior = cell.prior.posterior(problem)
    return [posterior.sample(size, seed + i) for i in range(count)]


def distances(
    solver: Solver, d: int, dy: int, number: int, count: int = 4, size: int = 50, slices: int = 256
) -> list[float] | None:
    """Distances of `count` clouds of a solver to exact ones, on problem `number` of a cell.

    None where the solver cannot solve a linear problem with a decomposition and Gaussian noise.
    """
    cell = gmm25_problem(d, dy, number)
    problem = posed_for(solver, cell)
    if problem is None:
        return None
    exact = exact_clouds(problem, cell, count, size, 10_000)
    own = clouds(solver, problem, cell, count, size)
    return [cell.distance(a, b, slices, i) for i, (a, b) in enumerate(zip(own, exact, strict=True))]


def floor(
    d: int, dy: int, number: int, count: int = 4, size: int = 50, slices: int = 256
) -> list[float]:
    """Distances of two exact clouds."""
    cell = gmm25_problem(d, dy, number)
    one, other = (exact_clouds(cell.problem, cell, count, size, s) for s in (10_000, 20_000))
    pairs = zip(one, other, strict=True)
    return [cell.distance(a, b, slices, i) for i, (a, b) in enumerate(pairs)]


def mean_and_error(found: list[list[float]]) -> tuple[float, float]:
    """Mean over problems of the mean over clouds, and its standard error by the clouds' spread."""
    values = torch.tensor(found, dtype=torch.float64)
    errors = values.var(dim=1, correction=1) / values.shape[1]
    return float(values.mean()), math.sqrt(float(errors.sum())) / len(values)
