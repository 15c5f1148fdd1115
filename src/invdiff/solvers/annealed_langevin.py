"""Annealed Langevin dynamics after a diffusion start: a corrector for any solver."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invdiff.core import CLEAN, InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule
from invdiff.noise import GaussianNoise
from invdiff.noise.base import parts, whole
from invdiff.operators.algebra.krylov import inverse_squared_norm
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.unconditional import Unconditional


@dataclass(frozen=True)
class AnnealedLangevin(Solver):
    """x <- x + b (score(x) + A^H (y_i - A x) / eta_i^2) + (2 b)^1/2 z, eta_i falling to sigma_y.

    Xun, Gupta, Price 2025, "Posterior sampling by combining diffusion models with annealed Langevin
    dynamics", arXiv 2510.26324, Algorithm 1. y_i = y plus noise, so that it has eta_i in all; the
    y_i are one walk that ends at y, drawn here from its noisy end on, as a bridge: their law is the
    paper's. x starts from a sample of `base`: of the prior in the paper's algorithm, of DPS in its
    images, of any solver here, and Langevin steps mend what that one has wrong nearby.

    Their law is, as they grow many and small, that of p(x; sigma) N(y; A x, sigma_y^2): score is
    that of images with the noise sigma, which stands for clean ones. b = c / (1 / sigma^2 +
    |A|^2 / eta_i^2). They do not join modes that are far apart. final "denoised" adds E[x0 | x];
    "none" is the paper's.
    `schedule` counts all steps: the share `start` of them is of the base, on a schedule of this
    kind; the rest is shared by the levels eta_i, which fall by a steady share from first |A|.
    """

    name: ClassVar[str] = "annealed-langevin"
    paper: ClassVar[str] = "Xun, Gupta, Price 2025, arXiv 2510.26324, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR, Need.GAUSSIAN, Need.NOISY})
    when_it_diverges: ClassVar[str] = "a smaller c"

    base: Solver = knob(Unconditional(), "the solver whose samples it starts from")
    start: float = knob(0.2, "share of the steps that the base takes", 0.001, 1)
    rounds: int = knob(10, "levels eta", 1)
    first: float = knob(1.0, "first eta, in units of the image", 1e-6)
    sigma: float = knob(0.1, "noise of the images whose score is taken", 1e-6)
    c: float = knob(0.5, "step size, in units of half the longest stable one", 1e-6, 2)
    final: Literal["none", "denoised"] = knob("denoised", "what becomes of the noise sigma")
    schedule: Schedule = field(default=Karras(250, 80.0, 0.1), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        count = max(1, round(self.start * self.schedule.steps))
        base = dataclasses.replace(
            self.base, schedule=dataclasses.replace(self.schedule, steps=count)
        ).with_steps(count)
        if base.weighted:
            raise InvdiffError(
                f"annealed-langevin starts from samples without weights; give {base.name} without."
            )
        advice = f"a smaller c, or, where {base.name} does, {base.when_it_diverges}"
        known = {"base": base, "coupled": base.coupled, "when_it_diverges": advice}
        for name, value in known.items():
            object.__setattr__(self, name, value)

    def requires(self) -> tuple[frozenset[Need], ...]:
        return tuple(needs | self.needs for needs in self.base.requires())

    @property
    def levels(self) -> list[Level]:
        """Those of the base, sigma for every Langevin step, and the image."""
        more = max(self.schedule.steps - self.base.num_steps, 0)
        return [*self.base.levels[:-1], *[Level(1.0, self.sigma)] * more, CLEAN]

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        return self.base.init(problem, prior, rng)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        done, count = state.step - self.base.num_steps, self.num_steps - self.base.num_steps
        if done < 0:
            return self.base.step(state, problem, prior, rng)
        x, extra = state.x, state.extra
        if done == 0:
            x = self.base.finish(state, problem, prior, rng)
            inverse = inverse_squared_norm(problem.linear, x).flatten()  # 0 where A is 0
            extra = {"norm2": torch.where(inverse > 0, 1 / inverse, 0.0)}
        rounds = min(self.rounds, count)
        i, before = done * rounds // count, (done - 1) * rounds // count if done else -1
        if i > before:
            extra = {**extra, "y": parts(self._nearer(extra, i, rounds, problem, rng))}
        x0 = prior.x0(x, self.levels[state.step])
        norm2, eta2 = _over(extra["norm2"], x), _over(self._eta2(extra, i, rounds, problem), x)
        r = problem.A.restrict(whole(extra["y"], problem.y) - problem.A(x))
        score = (x0 - x) / self.sigma**2 + problem.linear.adjoint(r) / eta2
        b = self.c / (1 / self.sigma**2 + norm2 / eta2)
        x = steps.langevin(x, score, b, rng.normal(x, "step"))
        return State(state.step + 1, x, x0, extra)

    def _eta2(self, extra: Mapping[str, Tensor], i: int, rounds: int, problem: Problem) -> Tensor:
        """The square of level i, (B,)."""
        low = problem.sigma_y
        top = (self.first * extra["norm2"].sqrt()).clamp_min(low)
        eta: Tensor = top * (low / top) ** (i / (rounds - 1) if rounds > 1 else 1.0)
        return eta.square().clamp_min(low**2)

    def _nearer(
        self, extra: Mapping[str, Tensor], i: int, rounds: int, problem: Problem, rng: Rng
    ) -> Tensor:
        """y_i given y_(i - 1) and y: a step of the bridge; the first is y with more noise."""
        y, own = problem.y, problem.sigma_y**2
        z = problem.A.restrict(GaussianNoise(1.0).sample(torch.zeros_like(y), rng))
        more = self._eta2(extra, i, rounds, problem) - own
        if i == 0:
            return y + _over(more.sqrt(), y) * z
        before = self._eta2(extra, i - 1, rounds, problem) - own
        share = torch.where(before > 0, more / before, 0.0)
        kept = _over(share, y) * (whole(extra["y"], y) - y)
        return y + kept + _over((share * (before - more).clamp_min(0.0)).sqrt(), y) * z

    def finish(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        if self.num_steps == self.base.num_steps:
            return self.base.finish(state, problem, prior, rng)
        return state.x if self.final == "none" else prior.x0(state.x, self.levels[-2])


def _over(values: Tensor, like: Tensor) -> Tensor:
    """(B,) to (B, 1, ...), as many axes as like has."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
