"""What is measured on posteriors that are known exactly: configurations, and problems as solvers
can take them.

Solvers for noiseless data are given noiseless measurements, and are compared with the posterior of
these. Those that work coordinate by coordinate (Adam) are measured in the coordinates in which the
problem is posed, which are not those of the literature: read their figures as another problem's.
"""

from __future__ import annotations

from torch import Tensor

from invdiff.core.schedules import VP, Karras
from invdiff.noise import NOISELESS
from invdiff.operators.algebra import Identity
from invdiff.operators.algebra.decoded import Autoencoder, decoded
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.sampling.needs import Need, missing
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver
from invdiff.solvers.cbg import CBG
from invdiff.solvers.daps import DAPS
from invdiff.solvers.mmps import MMPS
from invdiff.solvers.pigdm import PiGDM
from invdiff.solvers.tds import TDS

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
"""Such that the mixture of the full audit has alone."""


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
