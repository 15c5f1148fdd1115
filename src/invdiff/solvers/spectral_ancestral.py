"""Ancestral sampling with x0 drawn given y, its covariance being the prior's own error spectrum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invdiff.core import InvdiffError
from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import Solver, knob
from invdiff.sampling.state import State
from invdiff.solvers.normal import (
    Kind,
    covariance,
    first_mean,
    own_size,
    saturated,
    seen_size,
    unsaturated,
    weights,
)


@dataclass(frozen=True)
class SpectralAncestral(Solver):
    """X ~ N(D, V) given y, then x' = X + k (x - X) + sigma' sqrt(1 - k) z, k = (sigma'/sigma)^2.

    D is the denoiser's mean and V = V(sigma) the covariance of its error, measured once for each
    prior (`priors.spectrum`). The last step returns X, so that samples agree with y to its noise
    wherever the schedule ends. For a normal law of that spectrum and a linear A the samples are
    exact at any number of steps. The reverse variance of Bao et al. 2022 (Analytic-DPM, arXiv
    2201.06503), sigma'^2 (1 - k) + (1 - k)^2 tr V / n, is that of these two steps for V = r^2 I
    without y; a variance for each coordinate is in Bao et al. 2022b (SN-DDPM, arXiv 2206.07309); X
    drawn given y with V = r^2 I is in DAPS (arXiv 2407.01521). A full V that is measured, with y,
    is this file's own.

    X = D + e + V A^T (sigma_y^2 I + A V A^T)^-1 (y + sigma_y z2 - A (D + e)), e = V^(1/2) z1, by
    conjugate gradients in the space of y. The start is the posterior mean under V at a level where
    nothing is known of x0 yet, plus noise.
    seen_scale above 0: V grows by what y - A D exceeds sigma_y^2 I + A V A^T (`normal.seen_size`,
    the innovation test of a Kalman filter). A denoiser of many modes is mostly right and at times
    far off, so that V, a mean, is too small just there, and samples then miss y.
    data "start": y = x0 + sigma_y n is itself the first state, and no step reads it again; for
    denoising, on a schedule that begins at sigma_y. Values at the ends of the prior's range were
    cut off there: `refills` times they are drawn anew beyond them, about the denoised state.
    """

    name: ClassVar[str] = "spectral-ancestral"
    paper: ClassVar[str] = (
        "this project; builds on Bao et al. 2022, arXiv 2201.06503 and 2206.07309"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LINEAR, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "covariance isotropic"

    covariance: Kind = knob(
        "local", "what is known of V: the spectrum and where edges are, the spectrum, or the mean"
    )
    data: Literal["drawn", "start"] = knob(
        "drawn", "how y enters: in each X, or as the first state"
    )
    refills: int = knob(2, "how often clipped values of y are drawn, where y is the start", 0, 10)
    own_scale: float = knob(0.5, "how far the size of V may be the image's own: relative spread", 0)
    seen_scale: float = knob(0.0, "how far V may grow where y - A D is too large for it", 0)
    inflation: float = knob(1.0, "factor on V", 0.1, 10)
    iterations: int = knob(100, "bound on the conjugate gradients of a step", 1)
    tol: float = knob(
        0.05,
        "where these stop: misfit left over, in units of the noise of y or of the next level",
        0,
        1,
    )
    preconditioner: Literal["none", "modes"] = knob(
        "none",
        "modes: fewer iterations for blurs and reductions, by cosine modes; these stop at 0.4 tol",
    )
    schedule: Schedule = field(default=Karras(14, 3.0, 0.01), kw_only=True)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top, like = self.levels[0], problem.x_like
        z = rng.normal(like, "init")
        if self.data == "start":
            y = self._first(problem, prior, rng)
            return State(0, top.a * y, y.clone())
        enough = self.tol * max(problem.sigma_y, top.sigma)
        modes = self.preconditioner == "modes"
        mean = first_mean(problem, prior, self.iterations, enough, modes)
        return State(0, top.a * mean + top.s * z, mean)

    def course(self, problem: Problem, prior: Prior) -> bool:
        """Whether clipped values are drawn."""
        at = saturated(problem.y, prior.value_range)
        return self.data == "start" and self.refills > 0 and bool((at != 0).any())

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0, x = prior.x0(state.x, level), state.x / level.a
        V = covariance(prior, level.sigma, x0, self.covariance)
        V = V.scaled(self.inflation * own_size(x - x0, V, level.sigma, self.own_scale))
        if self.data == "drawn" and self.seen_scale > 0:
            Ae = problem.linear(V.root(rng.normal(x0, "size")))
            V = V.scaled(seen_size(problem.residual(x0), Ae, problem, self.seen_scale))
        X = x0 + V.root(rng.normal(x0, "x0"))
        if self.data == "drawn":
            r = problem.noise.sample(problem.y, rng) - problem.linear(X)
            enough = self.tol * max(problem.sigma_y, to.sigma)
            modes = self.preconditioner == "modes"
            w = weights(r, V, problem, self.iterations, enough, modes)
            X = X + V(problem.linear.adjoint(w))
        if to.s == 0:
            return State(state.step + 1, X, X.clone())
        x = steps.ddim(X, eps_from(state.x, X, level), level, to, rng.normal(x0, "step"), 1.0)
        return State(state.step + 1, x, x0)

    def _first(self, problem: Problem, prior: Prior, rng: Rng) -> Tensor:
        """y as a state of the chain, with what was clipped drawn beyond the ends of the range."""
        y, sigma = problem.y, self.levels[0].sigma
        noise = max(problem.sigma_y, 1e-12)
        image = y.shape == problem.x_like.shape and all(
            torch.equal(problem.A(v), v) for v in (y, torch.ones_like(y))
        )
        if not image or abs(sigma / noise - 1) > 0.01:
            raise InvdiffError(
                f"{self.name} can start from y where y is a noisy image and the schedule begins at "
                f"its noise, {problem.sigma_y:g}; take data drawn."
            )
        at, x = saturated(y, prior.value_range), y
        for k in range(self.refills if bool((at != 0).any()) else 0):
            x = unsaturated(y, at, prior.denoise(x, sigma), sigma, rng.uniform(y, f"refill {k}"))
        return x
