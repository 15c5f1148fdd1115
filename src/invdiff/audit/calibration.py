"""Whether a solver's samples scatter as much as they should: their variance on a normal law.

One problem: x ~ N(0, I) in 8 dimensions, 2 numbers y that see two directions of it with gains 1 and
0.5, noise of 0.3. Everything about its posterior is known; along what y does not see it is the
prior. A distance to a posterior of far-apart modes hardly sees variances; this sees nothing else.
"""

from __future__ import annotations

import torch

from invdiff.audit.distance import drawn, posed_for
from invdiff.audit.gmm25 import DenseOperator
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise
from invdiff.priors.gaussian import GaussianPrior
from invdiff.problem import Problem
from invdiff.sampling.solver import Solver

D, GAINS, SIGMA_Y = 8, (1.0, 0.5), 0.3


def normal_problem() -> tuple[Problem, GaussianPrior]:
    """The problem and its prior, float64."""
    f64, x_shape = torch.float64, (1, 1, D)
    prior = GaussianPrior(torch.zeros(x_shape, dtype=f64), 1.0)
    basis = torch.linalg.qr(Rng.of(0).normal(torch.empty(1, D, D, dtype=f64), "basis")[0]).Q
    A = DenseOperator.of(
        torch.tensor(GAINS, dtype=f64)[:, None] * basis[:, : len(GAINS)].mT, x_shape
    )
    noise = GaussianNoise(SIGMA_Y)
    rng = Rng.of([3])
    return Problem(noise.sample(A(prior.sample(1, rng)), rng), A, noise, x_shape), prior


def spread(solver: Solver | None, size: int = 400) -> tuple[float | None, float] | None:
    """Variance of `size` samples over the exact one, along what y sees and along the rest.

    solver: None for exact samples. The former is None for noiseless y, where it would be 0; all is
    None where the solver cannot. Standard errors: 1 / sqrt(size), and 1 / sqrt(3 size).
    """
    problem, prior = normal_problem()
    posed = problem if solver is None else posed_for(solver, problem, prior)
    if posed is None:
        return None
    if solver is None:
        x = prior.posterior(problem).sample(size, 5)
    else:
        x = drawn(solver, posed, prior, size)[0]
    variance = problem.spectral.Vt(x).double().var(0)
    s2 = problem.spectral.s[: len(GAINS)] ** 2
    unseen = float(variance[len(GAINS) :].mean())
    if posed.sigma_y == 0:
        return None, unseen
    exact = SIGMA_Y**2 / (s2 + SIGMA_Y**2)
    return float((variance[: len(GAINS)] / exact).mean()), unseen
