"""CSGM: annealed Langevin dynamics with the likelihood, for MRI and any differentiable operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from invdiff.core import Level, batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule, Stairs
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Claim, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class CSGM(Solver):
    """x <- x + b (score(x) + A^H (y - A x) / (gamma^2 + sigma_y^2)) + sqrt(2 b) z at each level.

    Jalal, Arvinte, Daras, Price, Dimakis, Tamir 2021, "Robust compressed sensing MRI with deep
    generative priors", arXiv 2108.01368, equation 4. b = c sigma^2; gamma_t -> gamma * sigma; x is
    in coordinates x_t / a. One step for each entry of the schedule, whose levels may repeat
    (`Stairs`).

    Asymptotic: each level has the law p(x; sigma) N(y; A x, gamma^2 + sigma_y^2) in the limit of
    small c and many steps, and these end at the posterior as sigma -> 0. The first level must be
    wide enough to join the modes: the official code's 1.232 is for images of about -1 to 1. Even so
    they are joined only as fast as Langevin dynamics mixes, slowly for two near modes, and for
    far-apart ones (GMM-25, in docs/full/audit.md) at no budget that is run.
    likelihood "matched" is what the official code does instead: the data term has the length of
    the score times weight, whatever sigma_y is (there over the batch; here per sample), which is no
    likelihood. `CSGM.official()` is that code's configuration, with c = 1.148, where a step is no
    longer small: a normal law comes out 2 / (2 - c) = 2.35 times too wide.
    In place of 3465 steps, `CSGM(c=0.2, final="denoised", schedule=VE(400, 3, 0.02))` takes 400;
    docs/short.md tells at what cost.
    It starts from noise of the first level, the official code from uniform noise. final "denoised"
    adds E[x0 | x] at the last level.
    """

    name: ClassVar[str] = "csgm"
    paper: ClassVar[str] = "Jalal et al. 2021, arXiv 2108.01368, eq. 4"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.OPERATOR_VJP, Need.GAUSSIAN})
    claim: ClassVar[Claim] = "asymptotic"

    when_it_diverges: ClassVar[str] = "a smaller c or weight, or a larger gamma"

    c: float = knob(0.1, "step size, in units of sigma^2", 1e-6, 2)
    weight: float = knob(1.0, "weight of the data term: 1 is Bayes' rule, 0 ignores y", 0)
    gamma: float = knob(1.0, "annealing of the likelihood, in units of sigma", 0.1)
    likelihood: Literal["score", "matched"] = knob("score", "the data term, or its length matched")
    final: Literal["none", "denoised"] = knob("none", "what becomes of the last level's noise")
    schedule: Schedule = field(default=VE(3465, 1.232, 0.0066), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.likelihood == "matched":  # no density has this score
            object.__setattr__(self, "claim", "heuristic")

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/file/*.yaml of utcsilab/csgm-mri-langevin: steps at late levels, by anatomy."""
        late = {"t2": 4, "abdomen": 4, "flair": 3, "t1": 3, "knee": 3}
        return {name: cls._late(hold) for name, hold in late.items()}

    @classmethod
    def official(cls, task: str | int = 3, value_range: Range = UNIT) -> Self:
        """The official code: levels 1156 to 2310 of 2311 from 232 to 0.0066, 3 steps at each.

        task: a name of `configurations`, or the number of steps at levels after 1800: 4 for T2
        brains and abdomens, else 3. Images are divided by the 99th percentile of their magnitude.
        """
        return cls._late(task) if type(task) is int else super().official(str(task))

    @classmethod
    def _late(cls, late_hold: int) -> Self:
        def sigma(i: float) -> float:
            return float(232.0 * (0.0066 / 232.0) ** (i / 2310))

        count = 3 * 645 + late_hold * 510
        schedule = Stairs(count, sigma(1156), 0.0066, 3, late_hold, sigma(1800.5))
        return cls(c=5e-5 / 0.0066**2, weight=5.0, likelihood="matched", schedule=schedule)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        z = rng.normal(problem.x_like, "init")
        return State(0, self.levels[0].sigma * z, 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        x, sigma = state.x, self.levels[state.step].sigma
        x0 = prior.x0(x, Level(1.0, sigma))
        score = (x0 - x) / sigma**2
        data = self._data_term(problem.A.vjp(x, problem.residual(x)), score, problem, sigma)
        z = rng.normal(x, "step")
        x = steps.langevin(x, score + self.weight * data, self.c * sigma**2, z)
        return State(state.step + 1, x, x0)

    def _data_term(self, g: Tensor, score: Tensor, problem: Problem, sigma: float) -> Tensor:
        """From g = A^H (y - A x)."""
        if self.likelihood == "score":
            return g / ((self.gamma * sigma) ** 2 + problem.sigma_y**2)
        norm = batch_norm(g)
        return g * batch_norm(score) / torch.where(norm > 0, norm, 1.0)

    def finish(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        if self.final == "none":
            return state.x
        return prior.x0(state.x, Level(1.0, self.levels[-2].sigma))
