"""Moment-matching posterior sampling: the denoiser's own Jacobian is the covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invdiff import steps
from invdiff.core import Problem, State
from invdiff.needs import Need
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob
from invdiff.solvers.moments import Krylov, posterior_mean


@dataclass(frozen=True)
class MMPS(Solver):
    """q(x0 | x_t) = N(D, V), V = (s^2 / a) dD/dx_t; sample with E_q[x0 | x_t, y] in place of D.

    Rozet, Andry, Lanusse, Louppe 2024, "Learning diffusion priors from observations by expectation
    maximization", arXiv 2405.13712, section 4.2 and Algorithm 3. Exact for a Gaussian prior up to
    the sampler's own discretisation, at any number of steps, once `iterations` suffices.
    Cost per step: 1 evaluation and iterations + 1 vector-Jacobian products. V of a trained network
    is symmetric only approximately: beyond a few iterations use krylov "gmres".
    """

    name: ClassVar[str] = "mmps"
    paper: ClassVar[str] = "Rozet, Andry, Lanusse, Louppe 2024, arXiv 2405.13712, Algorithm 3"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PRIOR_VJP, Need.LINEAR, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "fewer iterations or krylov gmres"

    iterations: int = knob(3, "conjugate-gradient iterations per step", 1, 50)
    krylov: Krylov = knob("cg", "linear solver; gmres where a network's Jacobian is not symmetric")
    eta_ddim: float = knob(1.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, pull = prior.x0_vjp(state.x, level)

        def V(w: Tensor) -> Tensor:
            return level.s**2 / level.a * pull(w)

        x0 = posterior_mean(x0, problem, V, self.iterations, self.krylov)
        eps = eps_from(state.x, x0, level)
        x = steps.ddim(x0, eps, level, to, rng.normal(x0, "step"), self.eta_ddim)
        return State(state.step + 1, x, x0)
