"""DAPS: draw x0 around the end of the probability flow, given y, and noise it to the next level."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule, karras_levels
from invdiff.noise import GaussianNoise
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import normal_draw, posterior_mean
from invdiff.solvers.pieces import pixel_draw

OFFICIAL: dict[str, tuple[float, int]] = {
    "super-resolution": (1e-4, 100),
    "deblur": (1e-4, 100),
    "inpaint": (1e-4, 100),
    "inpaint-box": (5e-5, 100),
    "motion-deblur": (5e-5, 100),
    "phase-retrieval": (5e-5, 100),
    "hdr": (2e-5, 100),
    "nonlinear-blur": (1e-5, 200),
}
"""lr and langevin_steps of the official configurations, by task: configs/task/*.yaml of
zhangbingliang2019/DAPS. They take y of noise 0.05 on [-1, 1], and for phase retrieval
`PhaseRetrieval(2.0, unit_range=True)`."""

OFFICIAL_TAU = 0.01 / math.sqrt(2)
"""The noise that the official code assumes, whatever it is: it divides by 0.01^2, not by twice."""

FLOW_END = 0.01
"""Noise level at which the probability flow ends; a tenth of where it starts, if that is less."""


@dataclass(frozen=True)
class DAPS(Solver):
    """x0 ~ N(x0; xhat0, sigma^2) p(y | x0), then x = x0 + sigma' xi, with xhat0 from the flow.

    Zhang, Chu, Berner, Meng, Anandkumar, Song 2025, "Improving diffusion inverse problem solving
    with decoupled noise annealing", CVPR, arXiv 2407.01521, Algorithm 1. xhat0(x_t) -> centre, r_t
    -> its standard deviation, eta_t -> lr, beta_y -> tau. xhat0 takes `flow_steps` Euler steps of
    the probability-flow equation.

    inner "exact": the law above in one draw, for linear operators and for those that measure every
    pixel by itself, linearly in pieces (saturation); "langevin": the paper's
    `langevin_steps` steps from xhat0, for any differentiable operator. Their size falls linearly
    from lr at the first of K levels to lr_min_ratio lr, which an annealing of K + 1 levels would
    have at its last: so the official code, which counts the clean image as a level. tau "sigma_y":
    the measurement's own noise. "official": OFFICIAL_TAU, which is far below it: the result then
    fits the noise of y, and hardly scatters. centre "tweedie" is not the paper's: x0 given x_t is
    taken for N(E[x0 | x_t], r^2) with r^2 = 1 / (1 / sigma^2 + 1 / data_std^2), at one evaluation a
    step. For white normal images of that deviation the samples are exact; those of "flow" have 1.66
    times the variance where y says nothing. `DAPS(centre="tweedie", schedule=Karras(50, 20, 0.1))`
    takes 50 evaluations in place of 1000; docs/short.md tells at what cost. Nor is centre
    "moments": x0 given x_t is taken for N(E[x0 | x_t], V), V = sigma^2 dD/dx_t, of which y is told
    as in MMPS, so that the samples are exact for any normal images, at any number of steps, once
    `iterations` suffices. It costs 1 evaluation and 2 iterations + 1 gradients a step, and wants to
    start far above the distance of modes: `DAPS(centre="moments", schedule=Karras(100, 1000,
    0.02))`. `official(task)` has the settings of the official code; the default differs from it in
    inner and tau. Its Hamiltonian sampler, the other choice of inner loop there, is not offered.
    """

    name: ClassVar[str] = "daps"
    paper: ClassVar[str] = "Zhang et al. 2025, arXiv 2407.01521, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PINV, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "a smaller lr, inner exact, or fewer iterations"

    inner: Literal["exact", "langevin"] = knob("exact", "how x0 is drawn around the centre")
    centre: Literal["flow", "tweedie", "moments"] = knob("flow", "what x0 is drawn around")
    tau: Literal["sigma_y", "official"] = knob("sigma_y", "noise level that the draw assumes of y")
    flow_steps: int = knob(5, "Euler steps of the probability flow", 1)
    data_std: float = knob(1.0, "standard deviation of images, for centre tweedie", 1e-6)
    langevin_steps: int = knob(100, "Langevin steps at each level", 1)
    lr: float = knob(1e-4, "size of the Langevin steps at the first level", 0)
    lr_min_ratio: float = knob(0.01, "share of lr towards which their size falls", 0, 1)
    iterations: int = knob(3, "Krylov iterations, for centre moments", 1, 50)
    schedule: Schedule = field(default=Karras(200, 100.0, 0.1, open_end=True), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.centre == "moments" and self.inner != "exact":
            raise InvdiffError(
                "daps: centre moments draws x0 at once; leave inner exact, or take another centre."
            )

    def requires(self) -> tuple[frozenset[Need], ...]:
        ways = [{Need.PINV}, {Need.PIECES}] if self.inner == "exact" else [{Need.OPERATOR_VJP}]
        if self.centre == "moments":
            ways = [{Need.PRIOR_VJP, Need.LINEAR}]
        if self.tau == "sigma_y":  # a Langevin step towards noiseless data has no length
            more = {Need.GAUSSIAN} if self.inner == "exact" else {Need.GAUSSIAN, Need.NOISY}
            ways = [needs | more for needs in ways]
        return tuple(frozenset(needs) for needs in ways)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/task/*.yaml of zhangbingliang2019/DAPS: 200 levels of 5 evaluations each."""
        return {
            task: cls("langevin", tau="official", lr=lr, langevin_steps=count)
            for task, (lr, count) in OFFICIAL.items()
        }

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x, tau = state.x / level.a, OFFICIAL_TAU if self.tau == "official" else problem.sigma_y
        if self.centre == "moments":
            x0 = self._moments(x, level.sigma, tau, problem, prior, rng)
        elif self.inner == "exact":
            x0 = self._exact(*self._law(x, level.sigma, prior), tau, problem, rng)
        else:
            share = state.step / (self.num_steps + 1)
            lr = self.lr * (1 - (1 - self.lr_min_ratio) * share)
            x0 = self._langevin(*self._law(x, level.sigma, prior), tau, lr, problem, rng)
        return State(state.step + 1, to.a * x0 + to.s * rng.normal(x0, "step"), x0)

    def _moments(
        self, x: Tensor, sigma: float, tau: float, problem: Problem, prior: Prior, rng: Rng
    ) -> Tensor:
        """A draw of N(D, V) given y: a draw of it and of the noise, then the rule of the mean."""
        x0, pull = prior.x0_vjp(x, Level(1.0, sigma))

        def V(w: Tensor) -> Tensor:
            return sigma**2 * pull(w)

        drawn = x0 + normal_draw(rng.normal(x0, "x0"), V, self.iterations)
        noise = GaussianNoise(tau)
        noisy = replace(problem, y=noise.sample(problem.y, rng), noise=noise)
        return posterior_mean(drawn, noisy, V, self.iterations)

    def _law(self, x: Tensor, sigma: float, prior: Prior) -> tuple[Tensor, float]:
        """Mean and variance of x0 given x = x0 + sigma eps, as this method has it."""
        if self.centre == "tweedie":
            x0 = prior.x0(x, Level(1.0, sigma))
            return x0, 1 / (1 / sigma**2 + 1 / self.data_std**2)
        flow = karras_levels(self.flow_steps + 1, sigma, min(FLOW_END, sigma / 10))[:-1]
        for t, u in pairwise(flow):
            x = x + (u.s - t.s) * (x - prior.x0(x, t)) / t.s
        return x, sigma**2

    def _exact(self, centre: Tensor, r2: float, tau: float, problem: Problem, rng: Rng) -> Tensor:
        """A draw of N(centre, r2) given y: a draw of it and of the noise, then the mean's rule; of
        an operator that is linear in pieces, pixel by pixel."""
        if problem.A.pieces:
            choice, u = (rng.uniform(centre, role) for role in ("piece", "share"))
            return pixel_draw(problem.A, problem.y, tau, centre, r2, choice, u)
        A = problem.linear
        x0 = centre + math.sqrt(r2) * rng.normal(centre, "x0")
        r = GaussianNoise(tau).sample(problem.y, rng) - A(x0)
        return x0 + (A.ridge(r, tau**2 / r2) if tau else A.pinv(r))

    def _langevin(
        self, centre: Tensor, r2: float, tau: float, lr: float, problem: Problem, rng: Rng
    ) -> Tensor:
        """Unadjusted Langevin steps on the log of the same law, from its centre."""
        x0 = centre
        for k in range(self.langevin_steps):
            pull = problem.A.vjp(x0, problem.residual(x0)) / tau**2
            z = rng.normal(x0, f"langevin {k}")
            x0 = steps.langevin(x0, (centre - x0) / r2 + pull, lr, z)
        return x0
