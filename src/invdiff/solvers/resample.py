"""ReSample: latents are fitted to y now and then, and put back among the noisy ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from invdiff.core import Level, batch_norm
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.operators.algebra import Operator
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class ReSample(Solver):
    """z' = DDIM step; now and then z0(y) = argmin |y - A D(z)|, and z is drawn from both.

    Song, Kwon, Zhang, Hu, Qu, Shen 2024, "Solving inverse problems with latent diffusion models via
    hard data consistency", arXiv 2307.08123. With abar of the current level, abar' of the next and
    c = gamma (1 - abar') (1 - abar / abar') / (1 - abar), stochastic resampling draws z from the
    product of N(sqrt(abar') z0(y), 1 - abar') and N(z', c); in another frame, scaled to it.
    Adam starts from the clean estimate: in the middle third of the steps from its image D(z0),
    which E encodes afterwards, in the last third from z0 itself. The first third fits nothing, the
    last step always: what it fits is returned. gamma, lr, every and the numbers of iterations are
    the official code's. That code also takes in every step one of DPS, 0.5 abar long (zeta), looks
    five DDIM steps ahead before it fits, has (1 - abar) where its root belongs in that estimate,
    decays weights (weight_decay 0.01 of AdamW), and stops at a residual of 1e-3, or when a latent's
    is above that of 200 iterations before; here a row stops at sigma_y, or at 1e-3. Its last move
    reaches table index 0, not the clean latent. `official(task)` has of these what there is a knob
    for: zeta, weight_decay and the schedule.
    """

    name: ClassVar[str] = "resample"
    paper: ClassVar[str] = "Song et al. 2024, arXiv 2307.08123"
    needs: ClassVar[frozenset[Need]] = frozenset(
        {Need.OPERATOR_VJP, Need.AUTOENCODER, Need.GAUSSIAN}
    )

    when_it_diverges: ClassVar[str] = "a smaller lr"

    gamma: float = knob(40.0, "how far a fitted latent is trusted", 1e-6)
    every: int = knob(10, "steps from one fit to the next", 1)
    iterations: int = knob(500, "Adam's steps in a fit of a latent, at most", 1)
    lr: float = knob(5e-3, "Adam's rate for latents", 1e-8)
    image_iterations: int = knob(2000, "Adam's steps in a fit of an image, at most", 1)
    image_lr: float = knob(1e-2, "Adam's rate for images", 1e-8)
    zeta: float = knob(0.0, "step of DPS in between, times abar", 0)
    eta_ddim: float = knob(0.0, "fresh noise per step: 0 is deterministic, 1 is DDPM", 0, 1)
    weight_decay: float = knob(0.0, "share of lr by which a fit shrinks its variable", 0, 1)
    schedule: Schedule = field(
        default=VP(
            500, betas="scaled-linear", spacing="trailing", beta_min=0.0015, beta_max=0.0195
        ),
        kw_only=True,
    )

    def requires(self) -> tuple[frozenset[Need], ...]:
        return (self.needs | ({Need.PRIOR_VJP} if self.zeta else set()),)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """ldm/models/diffusion/ddim.py and scripts of soominkwon/resample: 500 steps for all tasks,
        and for inpainting 200 iterations of a latent, by a comment there."""
        grid = VP(500, "scaled-linear", "strided", 1000, 0.0015, 0.0195, shift=1, end="first")
        how: dict[str, Any] = {"zeta": 0.5, "weight_decay": 0.01, "schedule": grid}
        tasks = ("super-resolution", "deblur", "nonlinear-blur", "ct")
        return dict.fromkeys(tasks, cls(**how)) | {"inpaint": cls(iterations=200, **how)}

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        latent, y, left = problem.latent, problem.y, self.num_steps - 1 - state.step
        push: Tensor | float = 0.0
        if self.zeta:
            z0, pull = prior.x0_vjp(state.x, level, once=True)
            uphill = latent.vjp(z0, steps.unit(problem.residual(z0)))
            push = self.zeta * level.alpha_bar * pull(uphill)
        else:
            z0 = prior.x0(state.x, level)
        eps = eps_from(state.x, z0, level)
        z = steps.ddim(z0, eps, level, to, rng.normal(z0, "step"), self.eta_ddim) + push
        tol, third = max(problem.sigma_y, 1e-3), self.num_steps // 3
        if left == 0:
            z0 = fit(z, latent, y, self.lr, self.iterations, tol, self.weight_decay)
            z = z0.clone()
        elif left <= self.num_steps - third and left % self.every == 0:
            if left >= third:
                how = self.image_lr, self.image_iterations, tol, self.weight_decay
                z0 = latent.encoder(fit(latent.inner(z0), latent.outer, y, *how))
            else:
                z0 = fit(z0, latent, y, self.lr, self.iterations, tol, self.weight_decay)
            z = self._resampled(z, z0, level, to, rng.normal(z0, "resample"))
        return State(state.step + 1, z, z0)

    def _resampled(self, z: Tensor, z0: Tensor, level: Level, to: Level, noise: Tensor) -> Tensor:
        bar, v = to.alpha_bar, 1 - to.alpha_bar
        c = self.gamma * v / (1 - level.alpha_bar) * (1 - level.alpha_bar / bar)
        size = math.hypot(to.a, to.s)
        mean = (c * to.a * z0 + v * z) / (c + v)
        return mean + size * math.sqrt(c * v / (c + v)) * noise


def fit(
    x: Tensor,
    A: Operator,
    y: Tensor,
    lr: float,
    iterations: int,
    tol: float,
    weight_decay: float = 0.0,
) -> Tensor:
    """Adam on the mean of (y - A(x))^2 from x; each row until the root of that is at most tol.

    weight_decay: x is multiplied by 1 - lr weight_decay before each step (AdamW: Loshchilov and
    Hutter 2019, arXiv 1711.05101, with their lambda divided by lr). Of complex y, the mean is over
    real and imaginary parts: tol, as sigma, is that of a part.
    """
    m = v = torch.zeros_like(x)
    ones = [1] * (x.ndim - 1)
    for k in range(iterations):
        r = y - A(x)
        n = r[0].numel() * (2 if r.is_complex() else 1)
        open_ = batch_norm(r).reshape(-1, *ones) > tol * math.sqrt(n)
        if not bool(open_.any()):
            break
        change, m, v = steps.adam(A.vjp(x, r) * (-2 / n), m, v, k)
        x = torch.where(open_, (1 - lr * weight_decay) * x - lr * change, x)
    return x
