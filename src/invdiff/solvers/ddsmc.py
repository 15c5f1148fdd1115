"""DDSMC: particles drawn by decoupled steps, x0 given y and then noise, without a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core import Level, batch_dot
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import importance
from invdiff.sampling.needs import Need
from invdiff.sampling.particles import ParticleFilter
from invdiff.sampling.solver import knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import posterior_draw, seen_white

MOST = 0.9
"""rho^2 over sigma'^2 at most: beyond 1 the corrected covariance is not positive."""


@dataclass(frozen=True)
class DDSMC(ParticleFilter):
    """x0 ~ N(D, rho^2) given y, noised to the next level: a proposal, with weights that correct it.

    Ekstrom Kelvinius, Zhao, Lindsten 2025, "Solving linear-Gaussian Bayesian inverse problems with
    decoupled diffusion sequential Monte Carlo", arXiv 2502.06379, with D = E[x0 | x_t]; N ->
    particles. With sigma = s / a and u = x / a: k = sigma'^2 / sigma^2, b = 1 - k,
    c = b / (b + eta (1 - b)), w = c sigma'^2. The prior's own kernel is
    r(u' | u) = N(c D + (1 - c) u, w); eta 1 is DDPM's, 0 noises D in full, as DAPS does.
    psi = N(y; A D, sigma_y^2 I + rho^2 A A^T). The proposal has the mean of r with E[x0 | y] of
    N(D, rho^2) in place of D, and the covariance w - c^2 rho^2 + c^2 Cov[x0 | y]; a row gains
    psi' r / (psi q~). The last step draws x0 from N(D, sigma^2), and weighs it by p(y | x0) / psi.

    No gradient of the network: 1 evaluation a step. `share` is rho^2 / sigma^2, one half in the
    paper's mixture; rho^2 is cut to 0.9 sigma'^2. Asymptotic in particles only for the law that r
    makes of noise, which for eta below 1 is not the prior's, at any number of steps.
    """

    name: ClassVar[str] = "ddsmc"
    paper: ClassVar[str] = "Ekstrom Kelvinius, Zhao, Lindsten 2025, arXiv 2502.06379, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV, Need.GAUSSIAN, Need.NOISY})
    when_it_diverges: ClassVar[str] = "more steps"

    eta: float = knob(1.0, "1: DDPM's kernel; 0: noise is drawn anew at every step", 0, 1)
    share: float = knob(0.5, "rho^2 over sigma^2: variance that is taken for that of x0", 1e-6, 1)
    schedule: Schedule = field(default=VE(100, 100.0, 0.01), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta < 1:
            object.__setattr__(self, "claim", "heuristic")

    def requires(self) -> tuple[frozenset[Need], ...]:
        return (self.needs | ({Need.SVD} if self.weights else set()),)  # a determinant

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        rho2 = self._rho2(level, to)
        x0 = prior.x0(state.x, level)
        back, psi = seen_white(x0, problem, rho2)
        extra, (u, x0, back, psi) = self.chosen(
            state.extra, psi, rng, state.x / level.a, x0, back, psi
        )
        z, mean = rng.normal(u, "step"), x0 + rho2 * back
        if to.s == 0:
            end = x0 + level.sigma * z
            gained = importance.log_likelihood(end, problem) - psi
            return self.ended(extra | {"log_w": extra["log_w"] + gained}, end, x0, rng)
        b = 1 - (to.sigma / level.sigma) ** 2
        c = b / (b + self.eta * (1 - b))
        w = c * to.sigma**2
        e = posterior_draw(x0, problem, rho2, rng)
        d1 = math.sqrt(w - c**2 * rho2) * z + c * e
        d0 = d1 + c * (mean - x0)
        gained = self._quotient(d0, d1, problem, rho2, c, w) - psi
        u = u + c * (mean - u) + d1
        return State(state.step + 1, to.a * u, mean, extra | {"log_w": extra["log_w"] + gained})

    def _rho2(self, level: Level, to: Level) -> float:
        rho2 = self.share * level.sigma**2
        return min(rho2, MOST * to.sigma**2) if to.s else rho2

    def _quotient(
        self, d0: Tensor, d1: Tensor, problem: Problem, rho2: float, c: float, w: float
    ) -> Tensor:
        """log r - log q~ at u', (B,), float64, with d0 and d1 what u' is off their means.

        The covariance of q~ is w - A^T M A, M = c^2 rho^4 G^-1, G = sigma_y^2 + rho^2 A A^T; its
        inverse is (1 + A^T (w M^-1 - A A^T)^-1 A) / w, and w M^-1 - A A^T = alpha + beta A A^T.
        """
        A = problem.linear
        alpha = w * problem.sigma_y**2 / (c * rho2) ** 2
        beta = w / (c**2 * rho2) - 1
        inner = A.ridge(A(d1), alpha / beta) / beta  # A^T (alpha + beta A A^T)^-1 A d1
        own = batch_dot(d1.double(), (d1 + inner).double()).flatten()
        found = 0.5 / w * (own - batch_dot(d0.double(), d0.double()).flatten())
        if self.weights:
            s2 = problem.spectral.spectrum(d1).double().square()
            lost = torch.log1p(-(c**2) * rho2**2 * s2 / (w * (problem.sigma_y**2 + rho2 * s2)))
            found = found + 0.5 * lost.expand_as(problem.spectral.Vt(d1)).flatten(1).sum(1)
        return found
