"""Diffusion posterior sampling: follow the gradient of the misfit of the clean estimate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.losses import LOSSES, NEEDS, Name

REPO = {
    "super-resolution": 0.3,
    "deblur": 0.3,
    "inpaint": 0.5,
    "phase-retrieval": 1.0,
    "nonlinear-blur": 0.3,
}
"""The official repository's step for each task, with Gaussian noise of 0.05 on [-1, 1]:
configs/*_config.yaml of DPS2022/diffusion-posterior-sampling, whose blurs have the boundary
"mirror" here. All but those of inpainting and nonlinear blur were chosen for Poisson noise, before
its configurations changed to Gaussian noise: with it they are several times too small."""


@dataclass(frozen=True)
class DPS(Solver):
    """x' = ancestral step; x_{i-1} = x' - c grad_{x_i} loss(y - A(x0(x_i))).

    Chung, Kim, McCann, Klasky, Ye 2023, "Diffusion posterior sampling for general noisy inverse
    problems", arXiv 2209.14687, Algorithm 1. zeta -> c, x0_hat -> x0, y - A(x0) -> r.
    loss: which misfit, and how the step is normalised (`losses`); "l2" is the official code, whose
    norm is over the batch: here it is per sample, and over measured entries only.
    clip: x0 is clipped to the prior's range, for the step and for the misfit. "value" is the
    official code, whose gradient vanishes where x0 was clipped, so that y cannot bring such a pixel
    back; "straight-through" keeps the gradient.
    variance: of the fresh noise. "lower" is the lower bound, that of `eta_ddim`; "learned", for
    eta_ddim 1, that which the network learned: the official code's (learned_range).
    `official(task)` has it; priors that learned none take "lower". The paper's own zeta for
    super-resolution is 1, with the loss "l2" and x0 clipped. The official respacing to n steps is
    `VP(n, spacing="ends")`. The step is in the frame of the schedule: zeta belongs to
    variance-preserving schedules. Tasks take 100 steps or so in place of 1000
    (`tasks.presets.short_dps`); docs/short.md tells at what cost.
    """

    name: ClassVar[str] = "dps"
    paper: ClassVar[str] = "Chung et al. 2023, arXiv 2209.14687, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP})

    when_it_diverges: ClassVar[str] = "a smaller zeta or more steps"

    zeta: float = knob(1.0, "guidance step size; 0 ignores y", 0)
    loss: Name = knob("l2", "which misfit is followed")
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    clip: steps.Clip = knob("off", "whether x0 is clipped, and the gradient too")
    count_floor: float = knob(1.0, "smallest photon count as a variance, in Poisson losses", 1e-6)
    variance: steps.Variance = knob("lower", "variance of the fresh noise")
    schedule: Schedule = field(default=VP(1000, spacing="trailing"), kw_only=True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        more = {Need.LEARNED_VARIANCE} if self.variance == "learned" else set()
        return (self.needs | NEEDS.get(self.loss, frozenset()) | more,)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/*_config.yaml of the official repository: 1000 steps, x0 clipped."""
        return {t: cls(zeta=z, clip="value", variance="learned") for t, z in REPO.items()}

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        z = rng.normal(state.x, "step")
        if self.variance == "learned":
            x0, v, pull = prior.x0_v_vjp(state.x, level, once=True)
            z = steps.spread(z, v, level, to)
        else:
            x0, pull = prior.x0_vjp(state.x, level, once=True)
        x0, inside = steps.clipped(x0, prior.value_range, self.clip)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, z, self.eta_ddim)
        r = problem.residual(x0)
        uphill = problem.A.vjp(x0, LOSSES[self.loss](problem, x0, r, self.count_floor))
        return State(state.step + 1, x + self.zeta * pull(inside * uphill), x0)
