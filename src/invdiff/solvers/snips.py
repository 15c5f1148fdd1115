"""Stochastic noisy inverse problem solving: annealed Langevin dynamics in the singular basis."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Claim, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class SNIPS(Solver):
    """Langevin steps whose noise is correlated with that of y, mode by mode.

    Kawar, Vaksman, Elad 2021, "SNIPS: solving noisy inverse problems stochastically",
    arXiv 2105.14951, Algorithm 1. K steps at each of L levels sigma; c -> c, the step is c sigma^2.
    In u = x / a, with ub = V^T u, db = V^T x0, yb = S^-1 U^T y and n = sigma_y / s of each mode,
    q = min(1, sigma^2 / n^2) (0 where s = 0), the paper's three cases are
      ub <- ub + c (q (yb - ub) + (1 - q) (db - ub)) + sqrt(2 c v) z,
      v = sigma^2 - n^2 where sigma >= n, else sigma^2 (1 - q).
    All modes take the prior's own Langevin step, and those with s > 0 are then set right.
    At sigma = n both cases agree; which modes are unseen is computed from s. The official code has
    no case for the tie, and drops y altogether where s has no zeros.

    Asymptotic: exact for small c and long chains, L K c -> infinity. Modes are joined only as fast
    as Langevin dynamics mixes: for near ones hundreds of steps do; far-apart ones (GMM-25, in
    docs/full/audit.md) keep wrong shares at any budget that is run. `schedule.steps` counts all
    steps, L = schedule.steps / K. Where x0 hardly depends on the state, n steps keep its noise at
    about sigma^2 (1 + c / 2 + (1 - rho) / 2c), rho = (sigma_L / sigma_1)^(2 / n); a network takes
    the excess for texture; it is least at c = sqrt(1 - rho). Defaults: CelebA 64 x 64 of the paper,
    whose levels from 90 to 0.01 are for images on [0, 1]: from 180 to 0.02 on [-1, 1].
    In place of these 2500 evaluations, `SNIPS(c=0.15, K=2, schedule=VE(400, 3.0, 0.02))` takes 400,
    with an excess of 15 % for 12 %. It starts from noise of the first level, the official code
    from uniform noise, which a run forgets. The result keeps the noise of the last level, as the
    paper's does, unless final is "denoised".
    """

    name: ClassVar[str] = "snips"
    paper: ClassVar[str] = "Kawar, Vaksman, Elad 2021, arXiv 2105.14951, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SVD, Need.GAUSSIAN})
    claim: ClassVar[Claim] = "asymptotic"

    when_it_diverges: ClassVar[str] = "a smaller c"

    c: float = knob(0.033, "step size, in units of sigma^2", 1e-6, 1)
    K: int = knob(5, "steps at each noise level", 1, 1000)
    final: Literal["none", "denoised"] = knob("none", "what becomes of the last level's noise")
    schedule: Schedule = field(default=VE.published(2500, 90.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/celeba.yml and configs/bedroom.yml of bahjat-kawar/snips_torch, whose levels are
        of images on [0, 1]: L 500 of K 5 with step_lr 3.3e-6, and 1086 of 3 with 1.8e-6."""
        return {
            "celeba": cls(schedule=VE.published(2500, 90.0, 0.01, value_range)),
            "lsun": cls(0.018, 3, schedule=VE.published(3258, 190.0, 0.01, value_range)),
        }

    @property
    def levels(self) -> list[Level]:
        """The level of every step: those of a schedule with steps / K levels, K times each."""
        if "_levels" not in self.__dict__:
            count = -(-self.schedule.steps // self.K)
            *noisy, clean = dataclasses.replace(self.schedule, steps=count).levels()
            spread = [
                noisy[i * len(noisy) // self.schedule.steps] for i in range(self.schedule.steps)
            ]
            self.__dict__["_levels"] = [*spread, clean]
        levels: list[Level] = self.__dict__["_levels"]
        return levels

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, u, sigma = problem.spectral, state.x / level.a, level.sigma
        x0, z = prior.x0(state.x, level), rng.normal(state.x, "step")
        plain = steps.langevin(u, (x0 - u) / sigma**2, self.c * sigma**2, z)
        s, inverse = A.seen(A.spectrum(u)), A.seen(A.inverse_spectrum(u))
        db, zb, yb = A.Vt_seen(x0), A.Vt_seen(z), inverse * A.seen(A.Ut(problem.y))
        n = problem.sigma_y * inverse
        q = (sigma / n).square().clamp_max(1.0)
        v = torch.where(n <= sigma, (sigma**2 - n**2).clamp_min(0.0), sigma**2 * (1 - q))
        change = self.c * q * (yb - db) + math.sqrt(2 * self.c) * (v.sqrt() - sigma) * zb
        u = plain + A.V_seen(torch.where(s > 0, change, 0.0))
        return State(state.step + 1, to.a * u, x0)

    def finish(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        if self.final == "none":
            return state.x
        last = self.levels[-2]
        return prior.x0(last.a * state.x, last)
