"""Tweedie moment projection: moment matching with a diagonal in the space of the measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import real, unreal


@dataclass(frozen=True)
class TMPD(Solver):
    """X = D + V A^T (diag(A V A^T 1) + sigma_y^2)^-1 (y - A D), V = (s^2 / a) dD/dx_t, then DDIM.

    Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz 2023, "Tweedie moment projected diffusions
    for inverse problems", arXiv 2310.06721, Algorithm 1. The row sums A V A^T 1 stand for the
    matrix, as in the authors' code: exact where A V A^T is diagonal, and where y is constant.
    Sums below 0, which only correlations against the sign make, count as 0.
    Cost per step: 1 evaluation, 2 gradients.
    """

    name: ClassVar[str] = "tmpd"
    paper: ClassVar[str] = "Boys et al. 2023, arXiv 2310.06721, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.PRIOR_VJP, Need.LINEAR, Need.GAUSSIAN, Need.NOISY}
    )
    when_it_diverges: ClassVar[str] = "more steps, or mmps"

    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level)

        def V(w: Tensor) -> Tensor:
            return level.s**2 / level.a * pull(w)

        A, r = problem.linear, problem.residual(x0)
        ones = A.restrict(unreal(torch.ones_like(real(r)), r))
        total = real(A(V(A.adjoint(ones)))).clamp_min(0.0) + problem.sigma_y**2
        guided = x0 + V(A.adjoint(unreal(real(r) / total, r)))
        z = rng.normal(x0, "step")
        x = steps.ddim(guided, eps_from(state.x, guided, level), level, to, z, self.eta_ddim)
        return State(state.step + 1, x, guided)
