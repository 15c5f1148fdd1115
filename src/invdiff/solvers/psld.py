"""PSLD: DPS on latents, and a term that glues them to what the encoder makes of a known image."""

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


@dataclass(frozen=True)
class PSLD(Solver):
    """z' = DDIM step; z_{i-1} = z' - grad_{z_i} (omega |y - A D(z0)| + gamma |z0 - E(x~)|).

    Rout, Raoof, Daras, Caramanis, Dimakis, Shakkottai 2023, "Solving linear inverse problems
    provably via posterior sampling with latent diffusion models", arXiv 2307.00619, Algorithm 2.
    z0 is the clean estimate of the latent z, D the decoder, E the encoder, and
    x~ = A^T y + (I - A^T A) D(z0): the decoded image with what was measured put in. The paper has
    A A^T = I in mind; scale other operators to a norm of at most 1. eta -> omega, gamma -> gamma.
    Norms are over one sample; those of the official code are over the batch. The defaults of its
    command line are the defaults here: omega = 1, gamma = 0.1, deterministic DDIM, 1000 steps,
    gradients of the norms (the paper's text has their squares); `official(task)` has what its
    scripts set. Its encoder draws a sample, where this takes the mean, and it adds noise to A D(z0)
    before it compares, which is not done here.
    Its grid is that of latent diffusion: for n < 1000 steps 1, 1 + c, 1 + 2 c, ... with c = 1000 //
    n, and the last move reaches table index 0 with its noise, not the clean latent: `VP(n,
    schedule="scaled-linear", spacing="strided", shift=1, end="first", beta_min=0.00085,
    beta_max=0.012)`. At n = 1000 its network is told t + 1 where the state stands at t.
    gamma = 0 is DPS with the loss "l2".
    """

    name: ClassVar[str] = "psld"
    paper: ClassVar[str] = "Rout et al. 2023, arXiv 2307.00619, Algorithm 2"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.PRIOR_VJP, Need.OPERATOR_VJP, Need.AUTOENCODER, Need.IMAGE_LINEAR}
    )

    when_it_diverges: ClassVar[str] = "a smaller omega or more steps"

    omega: float = knob(1.0, "step along the misfit's gradient", 0)
    gamma: float = knob(0.1, "step along the gluing term's gradient", 0)
    eta_ddim: float = knob(0.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    schedule: Schedule = field(
        default=VP(
            1000, betas="scaled-linear", spacing="trailing", beta_min=0.00085, beta_max=0.012
        ),
        kw_only=True,
    )

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """stable-diffusion/run/*.sh of LituRout/PSLD: inverse_bip.sh (box), the other scripts for
        Stable Diffusion (defaults), and inverse_*_ldm.sh for the latent model of faces."""
        grid = VP(1000, "scaled-linear", "strided", 1000, 0.00085, 0.012, shift=1, end="first")
        sd, ldm = cls(schedule=grid), cls(omega=0.1, schedule=grid)
        tasks = ("super-resolution", "deblur", "motion-deblur", "inpaint")
        return {
            **dict.fromkeys(tasks, sd),
            "inpaint-box": cls(omega=0.1, gamma=0.01, schedule=grid),
            **{f"{task}-ldm": ldm for task in tasks},
            "inpaint-box-ldm": ldm,
        }

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, D, E = problem.latent.linear, problem.latent.inner, problem.latent.encoder
        z0, pull = prior.x0_vjp(state.x, level, once=True)
        eps = eps_from(state.x, z0, level)
        z = steps.ddim(z0, eps, level, to, rng.normal(state.x, "step"), self.eta_ddim)

        x0 = D(z0)
        r = problem.y - A(x0)
        known = x0 + A.adjoint(r)  # x~
        glue = steps.unit(z0 - E(known))
        through = E.vjp(known, glue)
        uphill = self.omega * A.adjoint(steps.unit(r))
        uphill = uphill + self.gamma * (through - A.adjoint(A(through)))
        g = D.vjp(z0, uphill) - self.gamma * glue  # minus the gradient in z0
        return State(state.step + 1, z + pull(g), z0)
