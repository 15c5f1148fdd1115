"""Four problems in ten dimensions, two of them nonlinear, whose posteriors are known.

BIPSDA (arXiv 2503.03007): a prior of three normal laws; eight of ten numbers seen with little
noise and with much; the squares of five projections with much noise; counts of photons behind ten
attenuating parts. Matrices are drawn here, and are not those of the paper's code; counts have the
mean 1000 exp(-C x), as the paper writes them.

The linear posteriors are mixtures in closed form. For the others draws are weighed: half of them
of the prior, half of a normal law about each mode, by the density of both together. `effective`
tells how many draws that is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from invdiff.audit.distance import posed_for
from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.noise import GaussianNoise, Poisson
from invdiff.operators.algebra import Linear
from invdiff.operators.algebra.operator import Operator
from invdiff.priors.gaussian import GaussianMixture
from invdiff.problem import Problem
from invdiff.sampling import importance
from invdiff.sampling.run import solve
from invdiff.sampling.solver import Solver

CASES = ("low", "high", "phase", "xray")
N, SIZE, MOMENTS = 10, 500, 5
"""Dimension; samples of an observation; moments of the moment discrepancy."""
SHAPE = (1, 1, N)
KNOWN = (0, 1, 2, 4, 5, 6, 7, 9)
PROPOSED, WIDER, FLATTEST, LEAST = 200_000, 1.5, 0.1, 2000
"""Draws that are weighed; of a normal law about a mode, its variance over that of Laplace's
approximation, and the least curvature; effective draws below which a posterior is not known well
enough. The first three change how many draws the weighed ones are worth, and not their law."""
FIGURES = ("mean", "variance", "moments", "mmd")
F64 = torch.float64


@lru_cache(maxsize=1)
def prior() -> GaussianMixture:
    """Weights .4, .3, .3; means -5, 0, 5 in every coordinate; covariances I, L, Q^T L Q."""
    spread = torch.diag(torch.linspace(1, 2, N, dtype=F64))
    turn = torch.linalg.qr(drawn(N, N, 1)).Q
    covs = torch.stack([torch.eye(N, dtype=F64), spread, turn.mT @ spread @ turn])
    means = torch.tensor([-5.0, 0.0, 5.0], dtype=F64).reshape(3, 1, 1, 1).expand(3, *SHAPE)
    return GaussianMixture((0.4, 0.3, 0.3), means, covs, (-math.inf, math.inf))


def drawn(rows: int, columns: int, seed: int) -> Tensor:
    """A matrix of standard normals."""
    return Rng.of(seed).normal(torch.empty(1, rows, columns, dtype=F64), "bipsda")[0]


@lru_cache(maxsize=256)
def problem(case: str, number: int) -> Problem:
    """Observation `number` of a case."""
    x = prior().sample(1, Rng.of(number))
    noise: GaussianNoise | Poisson = GaussianNoise(0.1 if case == "low" else 5.0)
    A: Operator
    if case in ("low", "high"):
        A = Linear.from_matrix(torch.eye(N, dtype=F64)[list(KNOWN)], SHAPE)
    elif case == "phase":
        B, noise = drawn(5, N, 2), GaussianNoise(25.0)
        A = Operator.from_function(lambda x: (x.flatten(1) @ B.to(x).mT).square())
    else:
        u = Rng.of(3).uniform(torch.empty(1, 15, N, dtype=F64), "bipsda")[0]
        C, noise = 0.01 + 0.04 * u, Poisson(1000.0, black=0.0, white=1.0)
        A = Operator.from_function(lambda x: torch.exp(-x.flatten(1) @ C.to(x).mT))
    return Problem(noise.sample(A(x), Rng.of(1000 + number)), A, noise, SHAPE)


@dataclass(frozen=True, eq=False)
class Weighed:
    """A posterior: draws (M, N) with weights that sum to 1, float64."""

    draws: Tensor
    weights: Tensor

    @property
    def effective(self) -> float:
        """How many draws of equal weight they are worth."""
        return float(1 / self.weights.square().sum())

    def sample(self, seed: int) -> Tensor:
        """SIZE draws, (SIZE, N), of equal weight."""
        u = Rng.of(seed).uniform(torch.empty(1, dtype=F64), "bipsda")[0]
        return self.draws[importance.systematic(self.weights.log(), u, SIZE)]


@lru_cache(maxsize=256)
def posterior(case: str, number: int) -> Weighed:
    """The posterior of an observation."""
    posed = problem(case, number)
    if case in ("low", "high"):
        draws = prior().posterior(posed).sample(PROPOSED // 10, 7).double().flatten(1)
        return Weighed(draws, torch.full((len(draws),), 1 / len(draws), dtype=F64))
    found = weighed(posed)
    if found.effective < LEAST:
        raise InvdiffError(
            f"The posterior of observation {number} of {case} is worth {found.effective:.0f} "
            f"draws, which is less than the {LEAST} that an audit needs."
        )
    return found


def weighed(posed: Problem) -> Weighed:
    """The posterior of any observation, by weighted draws."""
    modes = [mode(posed, start) for start in prior().means]
    about = GaussianMixture(
        (1.0,) * len(modes), torch.stack([m for m, _ in modes]), torch.stack([c for _, c in modes])
    )
    half = PROPOSED // 2
    x = torch.cat([prior().sample(half, 7), about.sample(half, 8)])
    by = torch.logaddexp(prior().log_prob(x), about.log_prob(x))
    log_w = prior().log_prob(x) + likelihood(posed, x) - by
    return Weighed(x.double().flatten(1), torch.softmax(log_w, 0))


def likelihood(posed: Problem, x: Tensor) -> Tensor:
    """log p(y | x) of images (M, *SHAPE), (M,)."""
    return posed.noise.log_prob(posed.y.expand(len(x), *posed.y.shape[1:]), posed.A(x))


def mode(posed: Problem, start: Tensor) -> tuple[Tensor, Tensor]:
    """A maximum of the posterior's density from a start, by Newton's method where that goes up,
    and WIDER times the inverse of the negative second derivative there."""

    def log_p(v: Tensor) -> Tensor:
        x = v.reshape(1, *SHAPE)
        return (likelihood(posed, x) + prior().log_prob(x))[0]

    x = start.double().flatten().clone()
    for _ in range(30):
        gradient = torch.func.grad(log_p)(x)
        curvature = falling(torch.func.hessian(log_p)(x))
        step, size = torch.linalg.solve(curvature, gradient), 1.0
        while float(log_p(x + size * step)) < float(log_p(x)) and size > 1e-6:
            size /= 2
        x = x + size * step
    curvature = falling(torch.func.hessian(log_p)(x))
    return x.reshape(SHAPE), WIDER * torch.linalg.inv(curvature)


def falling(hessian: Tensor) -> Tensor:
    """Minus a second derivative, its eigenvalues made at least FLATTEST: a covariance needs it."""
    e, U = torch.linalg.eigh(-hessian)
    return (U * e.clamp_min(FLATTEST)) @ U.mT


def figures(x: Tensor, law: Weighed, seed: int) -> dict[str, float]:
    """Errors of samples (SIZE, N): |mean error|, |error of the variances|, the central moment
    discrepancy of five moments, and the squared maximum mean discrepancy to SIZE exact draws."""
    mean = law.weights @ law.draws
    own, true = central(x, x.mean(0), None), central(law.draws, mean, law.weights)
    scale = 4 * float(true[0].max().sqrt())
    moments = float((x.mean(0) - mean).norm()) / scale + sum(
        float((a - b).norm()) / scale**k for k, (a, b) in enumerate(zip(own, true, strict=True), 2)
    )
    return {
        "mean": float((x.mean(0) - mean).norm()),
        "variance": float((own[0] - true[0]).norm()),
        "moments": moments,
        "mmd": discrepancy(x, law.sample(seed)),
    }


def central(x: Tensor, mean: Tensor, weights: Tensor | None) -> list[Tensor]:
    """Central moments of every coordinate, of the orders 2 to MOMENTS."""
    w = torch.full((len(x),), 1 / len(x), dtype=F64) if weights is None else weights
    return [w @ (x - mean) ** k for k in range(2, MOMENTS + 1)]


def discrepancy(x: Tensor, z: Tensor) -> float:
    """Squared maximum mean discrepancy, a V-statistic, with five normal kernels: squares of their
    widths are 1/4 to 4 times the mean square distance of the exact draws z."""
    both = torch.cat([x, z])
    square = torch.cdist(both, both).square()
    width = float(square[len(x) :, len(x) :].sum()) / (len(z) * (len(z) - 1))
    k = sum((-square / (width * 2.0 ** (i - 3))).exp() for i in range(1, 6))
    assert isinstance(k, Tensor)
    n = len(x)
    return float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean())


def measured(solver: Solver | None, case: str, observations: int) -> dict[str, Any] | None:
    """Lists with an entry for each observation: FIGURES of SIZE samples, and NAME_exact of as many
    exact ones; None where the solver cannot. "effective": of the least known posterior. None in
    place of a solver: samples of the prior."""
    each: list[dict[str, float]] = []
    for number in range(observations):
        posed, law = problem(case, number), posterior(case, number)
        x = samples(solver, posed)
        if x is None:
            return None
        floor = figures(law.sample(500 + number), law, number)
        told = figures(x.double().flatten(1), law, number)
        each.append(told | {f"{k}_exact": v for k, v in floor.items()} | {"ess": law.effective})
    found: dict[str, Any] = {k: [round(one[k], 6) for one in each] for k in each[0] if k != "ess"}
    return found | {"effective": round(min(one["ess"] for one in each))}


def samples(solver: Solver | None, posed: Problem) -> Tensor | None:
    """SIZE samples of an observation, with its noise; None where the solver wants another one."""
    if solver is None:
        return prior().sample(SIZE, 3)
    own = posed_for(solver, posed, prior())
    if own is None or type(own.noise) is not type(posed.noise) or own.sigma_y != posed.sigma_y:
        return None
    return solve(own, prior(), solver, samples=SIZE).resampled()[0]
