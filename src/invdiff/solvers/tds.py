"""Twisted diffusion sampling: particles that are guided by y, and weighed for what guidance did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import importance, steps
from invdiff.sampling.needs import Need
from invdiff.sampling.particles import ParticleFilter
from invdiff.sampling.solver import knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import (
    MOST_NUMBERS,
    Seen,
    analytic_std,
    measured_numbers,
    posterior_mean,
    seen_white,
    seen_whole,
    white_variance,
    within_reach,
)

Twist = Literal["isotropic", "moments", "frozen"]
Kernel = Literal["ancestral", "analytic"]


@dataclass(frozen=True)
class TDS(ParticleFilter):
    """psi_t = N(y; A D, S): an ancestral step by X in place of D; weights psi_u q / (psi_t q~).

    Wu, Trippe, Naesseth, Blei, Cunningham 2023, "Practical and asymptotically exact conditional
    sampling in diffusion models", arXiv 2306.17775, Algorithm 1. p~ -> psi, K -> particles.
    D = E[x0 | x_t]; q is the prior's own ancestral kernel, q~ the guided one, of the same variance.
    X = D + (s^2 / a) J^T A^T S^-1 (y - A D), J = dD / dx_t. The last step draws x0 from
    N(D, sigma^2), without guidance, and weighs it by p(y | x0) / psi_t.

    twist "isotropic": the paper's, S = sigma_y^2 I + c A A^T, c = 1 / (1 / sigma^2 + 1 /
    data_std^2). `reach` cuts its steps as in PiGDM: longer ones, as between modes, overshoot.
    "moments": S = sigma_y^2 I + A V A^T with V = (s^2 / a) J of moment matching, as in MMPS: a
    gradient for each number of y and one more, so for at most 256 of them. "frozen": X of moment
    matching, by `iterations` of conjugate gradients, and psi of the isotropic S, which needs no
    determinant: for images. Neither S nor X changes what samples approach, but how fast.

    kernel "ancestral": q leaves out that x0 is not known, so that the law that samples approach is
    too narrow in few steps. "analytic": q and q~ have the variance of x0 given x_t too, as it is
    for white images of data_std (Bao et al. 2022, arXiv 2201.06503, Theorem 1). It wants a data_std
    that is not above that of one mode of the prior.

    Asymptotic in particles, for the law of the discretised prior. A cloud waits until less than
    half of it counts; threshold 1 resamples at every step. Samples of a small cloud may be copies
    of one, and a cloud of one is a guided chain. Cost per step and sample: 1 evaluation, and 1
    gradient, `iterations` + 1, or one more than the numbers of y.
    The schedule wants to start far above the distance of the prior's modes, and to fall by a steady
    share: weights degenerate at a steep fall, as at the end of a short VP table.
    """

    name: ClassVar[str] = "tds"
    paper: ClassVar[str] = "Wu et al. 2023, arXiv 2306.17775, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.PRIOR_VJP, Need.LINEAR, Need.GAUSSIAN, Need.NOISY}
    )
    when_it_diverges: ClassVar[str] = "more steps"

    twist: Twist = knob(
        "isotropic", "covariance of x0 that guides: of white images, or the prior's"
    )
    iterations: int = knob(3, "conjugate-gradient iterations per step, for frozen", 1, 50)
    data_std: float = knob(
        1.0, "standard deviation of images, for isotropic, frozen and analytic", 1e-6
    )
    reach: float = knob(
        1.0, "longest step of isotropic, in units of one that fits y; inf: any", 0, infinite=True
    )
    kernel: Kernel = knob(
        "ancestral", "variance of a step: DDPM's, or with that of x0 given x_t of white images"
    )
    schedule: Schedule = field(default=Karras(100, 100.0, 0.01), kw_only=True)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        count = len(measured_numbers(problem)) if self.twist == "moments" else 0
        if count > MOST_NUMBERS:
            raise InvdiffError(
                f"tds: twist moments takes a gradient for each of the {count} numbers of y, and at "
                f"most {MOST_NUMBERS} of them; take twist frozen."
            )
        return super().init(problem, prior, rng)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level, once=self.twist == "isotropic")

        def V(w: Tensor) -> Tensor:
            return level.s**2 / level.a * pull(w)

        seen = self._seen(x0, V, problem, level, to)
        extra, (x, x0, guided, psi) = self.chosen(
            state.extra, seen.log_p, rng, state.x, x0, seen.mean, seen.log_p
        )
        z = rng.normal(x, "step")
        if to.s == 0:
            end = x0 + level.sigma * z
            gained = importance.log_likelihood(end, problem) - psi
            return self.ended(extra | {"log_w": extra["log_w"] + gained}, end, x0, rng)
        wider = analytic_std(level, to, self.data_std) if self.kernel == "analytic" else 1.0
        gained = importance.gained(guided, x0, level, to, z, 1.0, wider) - psi
        x = steps.ddim(guided, eps_from(x, guided, level), level, to, wider * z, 1.0)
        return State(state.step + 1, x, guided, extra | {"log_w": extra["log_w"] + gained})

    def _seen(
        self,
        x0: Tensor,
        V: Callable[[Tensor], Tensor],
        problem: Problem,
        level: Level,
        to: Level,
    ) -> Seen:
        if self.twist == "moments":
            return seen_whole(x0, problem, V)
        back, log_p = seen_white(x0, problem, white_variance(level.sigma, self.data_std))
        if self.twist == "frozen":
            return Seen(posterior_mean(x0, problem, V, self.iterations), log_p)
        d, r = V(back), problem.residual(x0)
        if math.isfinite(self.reach):
            share = 1 - (to.sigma / level.sigma) ** 2
            d = within_reach(d, r, problem.linear.adjoint(r), share, self.reach)
        return Seen(x0 + d, log_p)
