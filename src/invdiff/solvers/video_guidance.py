"""Reconstruction guidance of video diffusion models: ancestral steps from a corrected x0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class VideoGuidance(Solver):
    """x0' = x0 - (w a_t / 2) grad_{x_t} |y - A x0(x_t)|^2, then an ancestral step that uses x0'.

    Ho, Salimans, Gritsenko, Chan, Norouzi, Fleet 2022, "Video diffusion models", arXiv 2204.03458,
    reconstruction-guided sampling. weight -> w_r. The correction is w a_t J^T A^T (y - A x0), with
    J = d x0 / d x_t, for any A: known frames (`Frames`), fewer pixels, images as well as videos.
    weight is meant for A A^T = 1, as with known frames; the mean over blocks of S x S pixels has
    A A^T = 1 / S^2, and wants S^2 times as much.
    Sampler: mean of q(x_s | x_t, x0'), variance (k s_s^2)^(1 - gamma) (k s_t^2)^gamma with
    k = 1 - (sigma_s / sigma_t)^2. With delta > 0, a Langevin step x <- x - (delta / 2) s e(x) +
    sqrt(delta) s z stands between any two ancestral steps; its e is of a guided x0' of its own.

    replace_known also redraws the observed part of x from q(x_s | y) after every step, as the paper
    does with known frames; the guidance then acts on the rest, because what it does to the observed
    part is overwritten. noise_aware divides y - A x0 by 1 + (sigma_y / sigma_t)^2: not in the
    paper, whose y is noiseless.
    gamma > 0 depends on the frame: it belongs to variance-preserving schedules.
    """

    name: ClassVar[str] = "vdm"
    paper: ClassVar[str] = "Ho et al. 2022, arXiv 2204.03458, reconstruction guidance"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP})

    when_it_diverges: ClassVar[str] = "a smaller weight or more steps"

    weight: float = knob(2.0, "guidance weight w; 0 ignores y", 0)
    gamma: float = knob(0.0, "variance of a step, from the lower bound (0) to the upper (1)", 0, 1)
    delta: float = knob(0.0, "size of the Langevin corrector, 0 for none; doubles the cost", 0, 1)
    replace_known: bool = knob(False, "also overwrite the observed part of the state")
    noise_aware: bool = knob(False, "weigh the misfit down where y is noisier than the state")
    clip: bool = knob(False, "clip the guided x0 to the prior's range")
    schedule: Schedule = field(default=VP(256, betas="cosine"), kw_only=True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        more = {Need.PINV} if self.replace_known else set()
        more |= {Need.GAUSSIAN} if self.noise_aware else set()
        return (self.needs | more,)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top = self.levels[0]
        z = rng.normal(problem.x_like, "init")
        x = top.s * z
        if self.replace_known:
            x = steps.replace(x, problem, top, z)
        return State(0, x, 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x = state.x
        if self.delta and state.step > 0:
            score = (level.a * self._guided(x, level, problem, prior) - x) / level.s**2
            x = steps.langevin(x, score, self.delta * level.s**2 / 2, rng.normal(x, "corrector"))
            if self.replace_known:
                x = steps.replace(x, problem, level, rng.normal(x, "known, corrected"))
        x0 = self._guided(x, level, problem, prior)
        wider = (level.s / to.s) ** self.gamma if to.s else 1.0
        z = wider * rng.normal(x, "step")
        x = steps.ddim(x0, eps_from(x, x0, level), level, to, z, 1.0)
        if self.replace_known:
            x = steps.replace(x, problem, to, rng.normal(x, "known"))
        return State(state.step + 1, x, x0)

    def _guided(self, x: Tensor, level: Level, problem: Problem, prior: Prior) -> Tensor:
        """x0 + w a_t J^T A^T (y - A x0)."""
        x0, pull = prior.x0_vjp(x, level, once=True)
        r = problem.residual(x0)
        if self.noise_aware:
            r = r / (1 + (problem.sigma_y / level.sigma) ** 2)
        x0 = x0 + self.weight * level.a * pull(problem.A.vjp(x0, r))
        return x0.clamp(*prior.value_range) if self.clip else x0
