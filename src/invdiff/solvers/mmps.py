"""Moment-matching posterior sampling: the denoiser's own Jacobian is the covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import VE
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import importance, steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import Krylov, posterior_draw, posterior_mean, white_variance

Covariance = Literal["denoiser", "white"]


@dataclass(frozen=True)
class MMPS(Solver):
    """q(x0 | x_t) = N(D, V), V = (s^2 / a) dD/dx_t; sample with E_q[x0 | x_t, y] in place of D.

    Rozet, Andry, Lanusse, Louppe 2024, "Learning diffusion priors from observations by expectation
    maximization", arXiv 2405.13712, section 4.2 and Algorithm 3. Its mean is exact for a Gaussian
    prior, at any number of steps, once `iterations` suffices; its variance is too small, the more
    so the fewer the steps.
    Cost per step: 1 evaluation and iterations + 1 vector-Jacobian products. V of a trained network
    is symmetric only approximately: beyond a few iterations use krylov "gmres".
    It starts from noise alone: the first level wants to be far above the distance of the prior's
    modes. That of the default, sigma 143, is for images of about -1 to 1.

    Three knobs are not the paper's. covariance "white" takes c I in place of V, and no gradient: it
    is JFPS, Jacobian-free posterior sampling, of the library azula (azula/guidance/jfps.py), for
    images of covariance data_std^2 I. draw: x0 is drawn about that mean, as the law N(D, c) with
    c = 1 / (1 / sigma^2 + 1 / data_std^2) is after y. Then the variance is right at few steps too,
    and exact for white normal images of that deviation. weights: each row carries its log weight
    (`importance.py`), so that weighted rows approach the posterior as rows and steps grow, whatever
    guidance does; the last step then draws from N(D, sigma^2) without guidance. `Result.ess` tells
    how many rows count: few, where y holds many numbers, or a schedule falls steeply.
    """

    name: ClassVar[str] = "mmps"
    paper: ClassVar[str] = "Rozet, Andry, Lanusse, Louppe 2024, arXiv 2405.13712, Algorithm 3"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "fewer iterations or krylov gmres"

    iterations: int = knob(3, "conjugate-gradient iterations per step", 1, 50)
    krylov: Krylov = knob("cg", "linear solver; gmres where a network's Jacobian is not symmetric")
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    covariance: Covariance = knob(
        "denoiser", "of x0 given x_t: of the denoiser's gradient, or of white images, without one"
    )
    draw: bool = knob(False, "draw x0 given x_t and y, in place of its mean")
    data_std: float = knob(1.0, "standard deviation of images, for draw and white", 1e-6)
    weights: bool = knob(False, "weigh the samples by the prior and the likelihood")

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """experiments/cifar/train.py and experiments/fastmri/train.py of
        francois-rozet/diffusion-priors: "ddpm" steps at geometric levels from 100 to .001.

        cifar10: maxiter 1, 256 steps. fastmri: maxiter 3, 64 steps. Their last state has the noise
        of .001; the last step here returns the mean.
        """
        return {
            "cifar10": cls(1, schedule=VE(256, 100.0, 1e-3)),
            "fastmri": cls(3, schedule=VE(64, 100.0, 1e-3)),
        }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draw and self.weights:
            raise InvdiffError("mmps: only steps by the mean have weights; leave draw or weights.")
        object.__setattr__(self, "weighted", self.weights)

    def requires(self) -> tuple[frozenset[Need], ...]:
        more = {Need.PINV} if self.draw else {Need.NOISY} if self.weights else set()
        gradient = {Need.PRIOR_VJP} if self.covariance == "denoiser" else set()
        return (self.needs | more | gradient,)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        state = super().init(problem, prior, rng)
        if not self.weights:
            return state
        return State(0, state.x, state.x0, importance.start(state.x, self.levels, self.eta_ddim))

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        c = white_variance(level.sigma, self.data_std)
        if self.covariance == "white":
            x0 = prior.x0(state.x, level)
        else:
            x0, pull = prior.x0_vjp(state.x, level)
        if self.weights and to.s == 0:
            return importance.finished(state, x0, level, problem, rng)

        def V(w: Tensor) -> Tensor:
            return c * w if self.covariance == "white" else level.s**2 / level.a * pull(w)

        mean = posterior_mean(x0, problem, V, self.iterations, self.krylov)
        guided = mean
        if self.draw:
            guided = mean + posterior_draw(mean, problem, c, rng)
        z = rng.normal(x0, "step")
        x = steps.ddim(guided, eps_from(state.x, guided, level), level, to, z, self.eta_ddim)
        extra = {}
        if self.weights:
            extra = importance.carried(state, guided, x0, level, to, z, self.eta_ddim)
        return State(state.step + 1, x, mean, extra)
