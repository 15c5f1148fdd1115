"""Exact posterior score: with an isometric A, y is one more noisy view of the whole image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Claim, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class EPS(Solver):
    """E[x0 | x_t, y] is the prior's own denoiser, at another image and another noise level.

    Mammadov, Kara, Oktay, Azangulov, Akan, Chung, Rehg, Teh 2026, "Exact posterior score estimation
    for solving linear inverse problems", arXiv 2606.17048, Theorem 1. x_t / a and y are independent
    measurements of x0, the former of variance sigma^2. Where A^T A = c I, y says what A^T y / c
    does, of variance sigma_y^2 / c, and together they are one: x0 + v eps, with
      1 / v^2 = 1 / sigma^2 + c / sigma_y^2,  mu = v^2 (x_t / (a sigma^2) + A^T y / sigma_y^2).
    So E[x0 | x_t, y] = E[x0 | x0 + v eps = mu], exactly, and the steps are DDIM's with it: what is
    left is their discretisation. The paper trains a network for other A; with any other A this
    solver refuses. v lies below sigma_y / sqrt(c), where the prior must be trusted.
    """

    name: ClassVar[str] = "eps"
    paper: ClassVar[str] = "Mammadov et al. 2026, arXiv 2606.17048, Theorem 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ISOMETRY, Need.GAUSSIAN, Need.NOISY})
    claim: ClassVar[Claim] = "asymptotic"

    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    schedule: Schedule = field(default=Karras(100, 80.0, 0.01), kw_only=True)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, noise = problem.spectral, problem.sigma_y**2
        v2 = 1 / (1 / level.sigma**2 + float(A.s.max()) ** 2 / noise)
        mu = v2 * (state.x / (level.a * level.sigma**2) + A.adjoint(problem.y) / noise)
        x0 = prior.x0(mu, Level(1.0, math.sqrt(v2)))
        z = rng.normal(x0, "step")
        x = steps.ddim(x0, eps_from(state.x, x0, level), level, to, z, self.eta_ddim)
        return State(state.step + 1, x, x0)
