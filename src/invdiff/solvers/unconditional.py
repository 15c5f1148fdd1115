"""The plain sampler: it draws from the prior and never looks at the measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from invdiff.core.rng import Rng
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.solver import Claim, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class Unconditional(Solver):
    """Samples of the prior by DDIM steps; eta_ddim = 1 is ancestral DDPM sampling.

    Song, Meng, Ermon 2021, "Denoising diffusion implicit models", arXiv 2010.02502, eq. 12.
    DPS, PiGDM and replacement without a corrector are this sampler, bit for bit, at weight 0.
    """

    name: ClassVar[str] = "unconditional"
    paper: ClassVar[str] = "Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 12"
    claim: ClassVar[Claim] = "heuristic"
    ignores_y: ClassVar[bool] = True

    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0 = prior.x0(state.x, level)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, rng.normal(state.x, "step"), self.eta_ddim)
        return State(state.step + 1, x, x0)
