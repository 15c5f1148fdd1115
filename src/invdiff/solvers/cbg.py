"""Guidance without a gradient: whole images are drawn from x_t, and weighed by what y says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule, karras_levels
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class CBG(Solver):
    """E[x0 | x_t, y] = sum_k w_k x0^k, x0^k ~ p(x0 | x_t), w_k ~ p(y | x0^k)^gamma; then DDIM.

    Geyfman, Draxler, Groeneveld, Lee, Karaletsos, Mandt 2026, "Calibrated test-time guidance for
    Bayesian inference", arXiv 2602.22428, Eq. 20, the form without gradients. K -> draws. x0^k is
    drawn by the prior's own ancestral sampler, from sigma down a grid of `inner` levels to
    `sigma_min`. It takes any operator, and any noise that has a density.

    The mean is exact as draws and inner grow. Where y holds many numbers, or the noise is low, one
    draw has all of the weight, and what guides is the draw nearest to y: take more draws, or a
    gamma below 1, which is the likelihood of noise that is larger, and no longer the posterior.
    Cost per step: draws times inner evaluations, and draws measurements.
    """

    name: ClassVar[str] = "cbg"
    paper: ClassVar[str] = "Geyfman et al. 2026, arXiv 2602.22428, Eq. 20"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DENSITY})

    draws: int = knob(16, "images drawn from x_t in each step", 1, 1_000_000)
    inner: int = knob(5, "steps of the prior's sampler for each of them", 1, 1000)
    gamma: float = knob(1.0, "power of the likelihood; below 1 it counts less", 1e-9)
    sigma_min: float = knob(0.01, "last noise level of the prior's sampler", 1e-6)
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    schedule: Schedule = field(default=Karras(20, 80.0, 0.01), kw_only=True)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0 = self._mean(state.x, level, problem, prior, rng)
        z = rng.normal(x0, "step")
        x = steps.ddim(x0, eps_from(state.x, x0, level), level, to, z, self.eta_ddim)
        return State(state.step + 1, x, x0)

    def _mean(self, x: Tensor, level: Level, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        """The weighted mean, one draw after the other: what it keeps does not grow with them."""
        mean = 0.0 * x
        total = mean.flatten(1)[:, 0].double()  # of all weights, over the largest of them
        largest = total - math.inf
        for k in range(self.draws):
            x0 = self._draw(x, level, prior, rng, k)
            log_w = self.gamma * problem.noise.log_prob(problem.y, problem.A(x0)).double()
            top = log_w.maximum(largest)
            w = (log_w - top).exp()
            total, largest = total * (largest - top).exp() + w, top
            share = (w / total).to(x0.dtype).reshape(-1, *[1] * (x0.ndim - 1))
            mean = mean + share * (x0 - mean)
        return mean

    def _draw(self, x: Tensor, level: Level, prior: Prior, rng: Rng, k: int) -> Tensor:
        """One image given x_t."""
        x, low = x / level.a, min(self.sigma_min, level.sigma)
        for j, (t, u) in enumerate(pairwise(karras_levels(self.inner, level.sigma, low))):
            x0 = prior.x0(x, t)
            z = rng.normal(x0, f"draw {k}, {j}")
            x = steps.ddim(x0, eps_from(x, x0, t), t, u, z, 1.0)
        return x
