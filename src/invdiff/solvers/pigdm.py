"""Pseudo-inverse guidance: for noisy linear and for noiseless, even undifferentiable, operators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import importance, steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import white_variance, within_reach


@dataclass(frozen=True)
class PiGDM(Solver):
    """x0 given x_t taken for N(D, r^2): g = J^T A^T (A A^T + sigma_y^2 / r^2)^-1 (y - A D).

    Song, Vahdat, Mardani, Kautz 2023, "Pseudoinverse-guided diffusion models for inverse
    problems", ICLR 2023, with the noisy score of section 3. v = s / a of x_t, J = dD / dx_t,
    r_t^2 = 1 / (1 / v^2 + 1 / data_std^2), which is the paper's v^2 / (1 + v^2) for 1; weight -> w.

    guidance "score": g / r^2 is the gradient of log p(y | x_t), so E[x0 | x_t, y] is
    X = D + w d, d = (s^2 / a) g / r^2, and the steps are DDIM's with X in place of D, from noise.
    Where Cov[x0 | x_t] exceeds r^2, as between modes, such a step may be unstable: it moves x by
    (1 - v_s^2 / v_t^2) d. `reach` cuts it to |r|^2 / <r, A d>, which fits y along r = y - A D;
    never for white normal images of data_std, nor in the limit of many steps. inf cuts nothing.
    "paper": Algorithm 1 as printed, DDIM by D plus w a_s a_t g, from a noised h^+(y). The factor
    a_s a_t makes the variance-preserving and the variance-exploding form the same; the noise eps is
    the unguided one. In VP this is 1 / ((1 + v_t^2) (1 - v_s^2 / v_t^2)) times the score's step,
    which leaves the samples too little variance. Presets for photographs were found with it.

    At sigma_y = 0 both take J^T (h^+(y) - h^+(h(D))) for g, without a gradient through h and h^+:
    the limit of the form above where h is linear, and the paper's form for other h, JPEG among
    them, of which it asks for a generalised inverse and no more.
    weights, with guidance "score": each row carries its log weight, as in MMPS.
    """

    name: ClassVar[str] = "pigdm"
    paper: ClassVar[str] = "Song, Vahdat, Mardani, Kautz 2023, ICLR, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.PINV, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "a smaller weight or more steps"

    weight: float = knob(1.0, "guidance weight w; 0 ignores y", 0)
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    guidance: Literal["score", "paper"] = knob("score", "a score, or the algorithm as printed")
    data_std: float = knob(1.0, "standard deviation of images, for r^2", 1e-6)
    reach: float = knob(
        1.0, "longest step by the score, in units of one that fits y; inf: any", 0, infinite=True
    )
    weights: bool = knob(False, "weigh the samples by the prior and the likelihood")

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """The lines of sample_test.sh of NVlabs/RED-diff, the authors' public code.

        _configs/algo/pgdm.yaml with algo.eta=1.0, algo.awd=True and 100 steps: sr4, deblur_gauss,
        in2_20ff and hdr are one configuration. Their code has no measurement noise, and two more
        things for single tasks: it overwrites D in the known pixels of in2 masks, and pushes the
        contrast of hdr.
        """
        same = cls(guidance="paper", schedule=VP(100, spacing="strided"))
        return dict.fromkeys(("super-resolution", "deblur", "inpaint", "hdr"), same)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weights:
            return
        if self.guidance == "paper":
            raise InvdiffError("pigdm: weights are those of guidance score; leave paper out.")
        object.__setattr__(self, "weighted", True)

    def requires(self) -> tuple[frozenset[Need], ...]:
        if self.weights:
            return (self.needs | {Need.NOISY},)
        return (self.needs, frozenset({Need.PRIOR_VJP, Need.GENERALISED_INVERSE, Need.NOISELESS}))

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top = self.levels[0]
        z = rng.normal(problem.x_like, "init")
        if self.guidance == "paper" and self.weight:
            start = top.a * problem.invertible.pinv(problem.y)
            return State(0, start + top.s * z, 0.0 * z)
        extra = importance.start(z, self.levels, self.eta_ddim) if self.weights else {}
        return State(0, top.s * z, 0.0 * z, extra)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level, once=True)
        if self.weights and to.s == 0:
            return importance.finished(state, x0, level, problem, rng)
        z = rng.normal(state.x, "step")
        r, back, u = self._misfit(x0, problem, level)
        g = self.weight * pull(u)
        if self.guidance == "paper":
            x = steps.ddim(x0, eps_from(state.x, x0, level), level, to, z, self.eta_ddim)
            return State(state.step + 1, x + to.a * level.a * g, x0)
        d = level.s**2 / level.a / self._r2(level) * g
        if to.s > 0 and math.isfinite(self.reach):
            d = within_reach(d, r, back, 1 - (to.sigma / level.sigma) ** 2, self.reach)
        x = steps.ddim(x0 + d, eps_from(state.x, x0 + d, level), level, to, z, self.eta_ddim)
        extra = {}
        if self.weights:
            extra = importance.carried(state, x0 + d, x0, level, to, z, self.eta_ddim)
        return State(state.step + 1, x, x0 + d, extra)

    def _r2(self, level: Level) -> float:
        return white_variance(level.sigma, self.data_std)

    def _misfit(self, x0: Tensor, problem: Problem, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """r = y - A x0, A^T r, and A^T (A A^T + sigma_y^2 / r^2)^-1 r.

        Without noise h^+(y) - h^+(h(x0)) stands for all three.
        """
        if problem.sigma_y == 0:
            r = problem.invertible.pinv_residual(problem.y, x0)
            return r, r, r
        A, r = problem.linear, problem.residual(x0)
        return r, A.adjoint(r), A.ridge(r, problem.sigma_y**2 / self._r2(level))
