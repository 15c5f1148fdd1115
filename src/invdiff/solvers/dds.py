"""Decomposed diffusion sampling: some conjugate gradients towards y from the clean estimate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.operators.algebra.krylov import conjugate_gradients
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class DDS(Solver):
    """X: `iterations` of conjugate gradients from x0 towards A^T A X = A^T y, then re-noised.

    Chung, Lee, Ye 2024, "Decomposed diffusion sampler for accelerating large-scale inverse
    problems", arXiv 2303.05754. With noise it is (1 + gamma A^T A) X = x0 + gamma A^T y, so that
    gamma weighs y against the prior, whatever the level; without noise, few iterations stay near
    x0. eta -> eta_prop. The noise eps is the network's own, not that which explains x_t by X.
    Neither gradients through the network nor a decomposition: one evaluation a step, and
    iterations + 1 products with A^T A.

    end "noised": every state has the noise of its level. "clean": X itself reaches the last noise
    level and is denoised once more there, as in the official code, which adds noise at all levels
    but that of table index 0. That code's conjugate gradients stop at a residual of 1e-5, and for
    complex data leave out the conjugation of their products; here they do neither.
    """

    name: ClassVar[str] = "dds"
    paper: ClassVar[str] = "Chung, Lee, Ye 2024, arXiv 2303.05754"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "a smaller gamma or fewer iterations"

    gamma: float = knob(1.0, "weight of noisy y against the prior; 0 ignores it", 0)
    iterations: int = knob(5, "conjugate-gradient iterations per step", 1, 200)
    eta_prop: float = knob(0.85, "share of fresh noise in each step", 0, 1)
    end: Literal["noised", "clean"] = knob("noised", "what reaches the last noise level")
    schedule: Schedule = field(default=VP(50), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """Scripts of HJ-harry/DDS: eta 0.85, T_sampling 50, gamma 1 and 5 iterations (solver_2d.py,
        with sigma_y 0.01 for MRI and CT, and solver_3d.py, with 0)."""
        same = cls(end="clean", schedule=VP(50, spacing="strided"))
        return dict.fromkeys(("mri", "ct"), same)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0 = prior.x0(state.x, level)
        eps = eps_from(state.x, x0, level)
        x0 = self._towards(x0, problem)
        if self.end == "clean" and state.step + 2 == self.num_steps:
            to = Level(1.0, 0.0)
        x = steps.renoise(x0, eps, to, rng.normal(x0, "step"), self.eta_prop * to.s)
        return State(state.step + 1, x, x0)

    def _towards(self, x0: Tensor, problem: Problem) -> Tensor:
        """The correction solves a system with A^T (y - A x0) on its right, from 0."""
        A = problem.linear
        r = A.adjoint(problem.residual(x0))
        noisy = problem.sigma_y > 0
        gamma = self.gamma if noisy else 1.0

        def system(u: Tensor) -> Tensor:
            seen = A.adjoint(A(u))
            return torch.add(u, seen, alpha=gamma) if noisy else seen

        return x0 + conjugate_gradients(system, gamma * r, self.iterations)
