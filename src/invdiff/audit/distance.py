"""How far a solver's samples are from a posterior that is known exactly.

The problems are those of GMM-25 (`gmm25.py`): up to 25 far-apart modes, 1 to 4 measurements. The
distance of two clouds of samples is sliced Wasserstein-2 in R^d. Two references give it a meaning:
that of two exact clouds of the same size, and the unconditional sampler, which is what it costs to
ignore the measurement. The share of wrong modes and the residual tell what a distance hides.

Solvers for noiseless data are given noiseless measurements, and are compared with the posterior of
these. Those that work coordinate by coordinate (Adam) are measured in the coordinates in which the
problem is posed, which are not those of the literature: read their figures as another problem's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from invdiff.audit.cells import mean_and_error
from invdiff.audit.gmm25 import GMM25, gmm25_problem
from invdiff.core.schedules import VP, Karras
from invdiff.noise import NOISELESS
from invdiff.operators.algebra import Identity
from invdiff.operators.algebra.decoded import Autoencoder, decoded
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers import registry
from invdiff.solvers.cbg import CBG
from invdiff.solvers.daps import DAPS
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.tds import TDS

CELLS = ((8, 4), (80, 2))
"""Dimension and number of measurements of the problems that are reported."""
SIZE, SLICES = 50, 256
"""Samples in a cloud, and the directions in which clouds are compared."""
UNCHANGED = Autoencoder(Identity(), Identity())
WIDE = Karras(100, 1000.0, 0.02)
"""From far above the distance of the modes of GMM-25, which is up to 100."""
CONFIGURED: dict[str, Solver] = {
    "daps, moments, wide": DAPS(centre="moments", iterations=4, schedule=WIDE),
    "mmps, 20 steps": MMPS(schedule=VP(20)),
    "mmps, wide": MMPS(schedule=WIDE),
    "mmps, draw": MMPS(draw=True),
    "mmps, draw, 20 steps": MMPS(draw=True, schedule=VP(20)),
    "mmps, weights, wide": MMPS(weights=True, schedule=WIDE),
    "pigdm, 300 steps": PiGDM(schedule=VP(300)),
    "pigdm, paper": PiGDM(guidance="paper"),
    "tds, moments, wide": TDS(twist="moments", kernel="analytic", schedule=WIDE),
}
"""Configurations that are reported beside the defaults of every solver."""
COSTLY: dict[str, Solver] = {
    "cbg, 64 draws, wide": CBG(draws=64, inner=10, schedule=Karras(20, 1000.0, 0.02)),
}
"""Such that are reported here alone, and not in every part of an audit."""
MOST_STEPS = 1000
"""A solver whose paper takes more is measured with so many."""


def rows() -> dict[str, Solver]:
    """What is measured: every solver with the defaults of its paper, CONFIGURED, and COSTLY."""
    solvers = {name: cls() for name, cls in registry().items()}
    return {
        name: solver.with_steps(MOST_STEPS) if solver.num_steps > MOST_STEPS else solver
        for name, solver in {**solvers, **CONFIGURED, **COSTLY}.items()
    }


class Found(NamedTuple):
    """What one problem tells of a solver.

    distance: sliced W2 to the exact posterior. modes: total variation, from 0 to 1, of the shares
    of the modes. residual: mean of |y - A x|^2 / (sigma_y^2 times their number), about 1 for exact
    samples; 0 for noiseless y. ess: effective share of weighted samples, 1 without weights.
    """

    distance: float
    modes: float
    residual: float
    ess: float


def posed_for(solver: Solver, problem: Problem, prior: GaussianMixture) -> Problem | None:
    """The problem, without noise where the solver wants none; None where it cannot.

    For a solver of latents it is the same problem behind an autoencoder that changes nothing.
    """
    if solver.always_needs(Need.AUTOENCODER):
        decoding = decoded(problem.A, UNCHANGED)
        problem = Problem(problem.y, decoding, problem.noise, problem.x_shape)
    if missing(solver, problem, prior):
        y = problem.A(prior.sample(1, 77))
        problem = Problem(y, problem.A, NOISELESS, problem.x_shape)
    return None if missing(solver, problem, prior) else problem


def drawn(
    solver: Solver, problem: Problem, prior: GaussianMixture, size: int
) -> tuple[Tensor, float]:
    """`size` samples, (size, *x_shape), resampled by their weights; and the effective share."""
    result = solve(problem, prior, solver, samples=size)
    ess = 1.0 if result.ess is None else float(result.ess[0]) / size
    return result.resampled()[0], ess


def judged(cell: GMM25, problem: Problem, samples: Tensor, ess: float = 1.0) -> Found:
    """What samples (N, *x_shape) of the problem are worth: means over clouds of SIZE of them.

    Each cloud is compared with exact samples of its own.
    """
    posterior, clouds = cell.prior.posterior(problem), torch.split(samples, SIZE)
    means, found = cell.prior.means.flatten(1), []
    for i, cloud in enumerate(clouds):
        distance = cell.distance(cloud, posterior.sample(SIZE, 10_000 + i), SLICES, i, order=2)
        nearest = torch.cdist(cloud.double().flatten(1), means).argmin(1)
        share = torch.bincount(nearest, minlength=len(means)) / SIZE
        found.append((distance, 0.5 * float((share - posterior.weights).abs().sum())))
    residual = 0.0
    if problem.sigma_y:
        misfit = problem.residual(samples).double().square().sum()
        residual = float(misfit) / (len(samples) * problem.y.numel() * problem.sigma_y**2)
    distance, modes = (sum(values) / len(clouds) for values in zip(*found, strict=True))
    return Found(distance, modes, residual, ess)


def measured(solver: Solver, d: int, dy: int, number: int, clouds: int = 4) -> Found | None:
    """What problem `number` of a cell tells of a solver, by so many clouds of SIZE samples.

    None where the solver cannot solve a linear problem with a decomposition and Gaussian noise.
    """
    cell = gmm25_problem(d, dy, number)
    problem = posed_for(solver, cell.problem, cell.prior)
    if problem is None:
        return None
    return judged(cell, problem, *drawn(solver, problem, cell.prior, clouds * SIZE))


def floor(d: int, dy: int, number: int, clouds: int = 4) -> Found:
    """What it tells of as many exact samples."""
    cell = gmm25_problem(d, dy, number)
    samples = [cell.posterior().sample(SIZE, 20_000 + i) for i in range(clouds)]
    return judged(cell, cell.problem, torch.cat(samples))


def nearer(one: list[float], other: list[float], errors: float = 3.0) -> bool:
    """Whether the mean of one is below that of the other by so many standard errors.

    Of the differences, problem by problem: what makes a problem hard for both drops out.
    """
    gap, error = mean_and_error([b - a for a, b in zip(one, other, strict=True)])
    return gap > errors * error
