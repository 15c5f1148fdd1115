"""The denoiser itself: one evaluation at the noise level of the measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from invdiff.core.rng import Rng
from invdiff.core.schedules import VE, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.normal import saturated, unsaturated


@dataclass(frozen=True)
class OneCall(Solver):
    """x0 = D(h^+(y), sigma), sigma the one level of the schedule.

    For y = x + sigma n and a schedule at that level it is the posterior mean, E[x0 | y], as far as
    the prior knows it (Robbins 1956; Efron 2011, JASA 106, calls it Tweedie's formula; for
    denoisers see Karras et al. 2022, arXiv 2206.00364, eq. 4). So it is for A with A^T A = c I,
    where the level is sigma / sqrt(c). The error of h^+(y) of other operators is no white noise.
    Values at the ends of the prior's range were clipped there: `refills` times they are replaced by
    their mean beyond it, about the denoised image.
    No noise is drawn: every sample is the same picture, an estimate.
    """

    name: ClassVar[str] = "one-call"
    paper: ClassVar[str] = "Efron 2011, Tweedie's formula, JASA 106"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ISOMETRY})
    estimates: ClassVar[bool] = True

    when_it_diverges: ClassVar[str] = "a schedule whose level lies within those of the prior"

    refills: int = knob(0, "how often clipped values of y are replaced by their mean", 0, 10)
    schedule: Schedule = field(default=VE(1, 0.15, 0.15), kw_only=True)

    def course(self, problem: Problem, prior: Prior) -> bool:
        """Whether clipped values are replaced."""
        at = saturated(problem.invertible.pinv(problem.y), prior.value_range)
        return self.refills > 0 and bool((at != 0).any())

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        x = problem.invertible.pinv(problem.y)
        at, y, sigma = saturated(x, prior.value_range), x, self.levels[0].sigma
        for _ in range(self.refills if bool((at != 0).any()) else 0):
            x = unsaturated(y, at, prior.denoise(x, sigma), sigma, None)
        return State(0, x, x.clone())

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        x0 = prior.denoise(state.x, self.levels[state.step].sigma)
        return State(state.step + 1, x0, x0.clone())
