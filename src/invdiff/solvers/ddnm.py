"""Null-space sampling: the range space from y, the null space from the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from invdiff.core.rng import Rng
from invdiff.core.schedules import VP
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State

OFFICIAL_SCHEDULE = VP(100, spacing="strided")
"""T_sampling 100; with eta 0.85 in all commands of evaluation.sh and configs/*.yml of wyhuai/DDNM,
where time travel is off (travel_length and travel_repeat are 1); it is not offered here."""


@dataclass(frozen=True)
class DDNM(Solver):
    """X = x0 - A^+(A x0) + A^+ y, then re-noised: for measurements without noise.

    Wang, Yu, Zhang 2023, "Zero-shot image restoration using denoising diffusion null-space
    model", arXiv 2212.00490, Algorithm 1. The last step returns X: exactly consistent with y
    where A is linear. Where A is not (quantisation), A^+ is its generalised inverse; the paper has
    linear operators only.
    """

    name: ClassVar[str] = "ddnm"
    paper: ClassVar[str] = "Wang, Yu, Zhang 2023, arXiv 2212.00490, Algorithm 1"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GENERALISED_INVERSE, Need.NOISELESS})

    when_it_diverges: ClassVar[str] = "ddnm+ with the noise level that the measurement really has"

    eta_prop: float = knob(0.85, "share of fresh noise in each step", 0, 1)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """The tasks of evaluation.sh of wyhuai/DDNM, all alike: 100 steps, eta 0.85."""
        tasks = ("super-resolution", "deblur", "colorize", "inpaint", "compressed-sensing")
        return dict.fromkeys(tasks, cls(schedule=OFFICIAL_SCHEDULE))

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        x0 = prior.x0(state.x, level)
        eps = eps_from(state.x, x0, level)
        x0 = x0 + problem.invertible.pinv_residual(problem.y, x0)
        x = steps.renoise(x0, eps, to, rng.normal(x0, "step"), self.eta_prop * to.s)
        return State(state.step + 1, x, x0)


@dataclass(frozen=True)
class DDNMPlus(Solver):
    """DDNM with the noise of y taken out of the fresh noise, mode by mode.

    Wang, Yu, Zhang 2023, arXiv 2212.00490, section 3.3 and appendix on DDNM+ (SVD form):
    per mode, with t = a' sigma_y / s_i, lam = 1 and fresh noise sqrt(s'^2 - t^2) while s' >= t,
    else lam = s_i s' sqrt(1 - eta^2) / (a' sigma_y) and fresh noise eta s'. Where s_i = 0, the
    network's noise is kept with sqrt(1 - eta^2). Noise is rotated by V^T before it is mixed; the
    official code takes both the fresh noise and the network's as if they were rotated already,
    which is the same where V is the identity (inpainting, denoising) and an error elsewhere.
    """

    name: ClassVar[str] = "ddnm+"
    paper: ClassVar[str] = "Wang, Yu, Zhang 2023, arXiv 2212.00490, section 3.3"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SVD, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "the noise level that the measurement really has"

    eta_prop: float = knob(0.85, "share of fresh noise in each step", 0, 1)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """The noisy tasks of evaluation.sh of wyhuai/DDNM, all alike: 100 steps, eta 0.85."""
        tasks = ("super-resolution", "deblur", "colorize", "inpaint", "denoise")
        return dict.fromkeys(tasks, cls(schedule=OFFICIAL_SCHEDULE))

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, eta = problem.spectral, self.eta_prop
        x0 = prior.x0(state.x, level)
        z = rng.normal(x0, "step")
        plain = steps.renoise(x0, eps_from(state.x, x0, level), to, z, eta * to.s)
        s, inverse = A.seen(A.spectrum(x0)), A.seen(A.inverse_spectrum(x0))
        t = to.a * problem.sigma_y * inverse
        db, zb, yb = A.Vt_seen(x0), A.Vt_seen(z), inverse * A.seen(A.Ut(problem.y))
        pull = math.sqrt(1 - eta**2) * to.s / t.clamp_min(torch.finfo(t.dtype).tiny)
        precise = to.s >= t
        lam = torch.where(precise, 1.0, pull)
        fresh = torch.where(precise, (to.s**2 - t**2).clamp_min(0).sqrt(), eta * to.s)
        xb = to.a * (db + lam * (yb - db)) + fresh * zb
        change = torch.where(s > 0, xb - A.Vt_seen(plain), 0.0)
        return State(state.step + 1, plain + A.V_seen(change), x0)
