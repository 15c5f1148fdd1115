"""Denoising diffusion restoration: replacement in the operator's singular basis, noise-aware."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Schedule
from invdiff.priors.base import Prior, eps_from
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.solver import UNIT, Range, Solver, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class DDRM(Solver):
    """Each singular mode follows y while y is less noisy than the state, then the denoiser.

    Kawar, Elad, Ermon, Song 2022, "Denoising diffusion restoration models", arXiv 2201.11793,
    equations 7 and 8, in coordinates x_t / a_t: w = next sigma, n_i = sigma_y / s_i.
    x_bar -> xb = V^T x, theta_bar -> db = V^T x0, y_bar -> yb = S^-1 U^T y.

    All modes take the step of an unobserved one; those with s_i > 0 are then set right, which
    needs transforms of these only. A mode with s_i = 0 takes the rule of unobserved modes, and
    n_i = w the rule of precise ones, so that noiseless data are kept in the last step. The official
    code does neither: where s_i is stored as 0, it adds U^T y / sigma_y to the mode, and its last
    step returns the denoiser's estimate, as last "denoise" does. It also starts from y divided by
    the first level's s in place of y times its a, which a run forgets (1e-4 after a step).
    `official(task)` has its constants and its grid, `VP(20, spacing="strided")`.
    """

    name: ClassVar[str] = "ddrm"
    paper: ClassVar[str] = "Kawar, Elad, Ermon, Song 2022, arXiv 2201.11793, eq. 7 and 8"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SVD, Need.GAUSSIAN})

    when_it_diverges: ClassVar[str] = "the noise level that the measurement really has"

    eta_prop: float = knob(0.85, "share of fresh noise where y says less than the prior", 0, 1)
    eta_b: float = knob(1.0, "weight of y where it is more precise than the state", 0, 1)
    last: Literal["consistent", "denoise"] = knob(
        "consistent", "whether the last step keeps noiseless data, or returns the denoiser's x0"
    )
    schedule: Schedule = field(default=VP(20), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """README.md of bahjat-kawar/ddrm: --timesteps 20 --eta 0.85 --etaB 1 for all its tasks.

        --sigma_0 is for images on [0, 1], and doubled in runners/diffusion.py.
        """
        tasks = ("super-resolution", "deblur", "inpaint", "colorize", "denoise")
        same = cls(last="denoise", schedule=VP(20, spacing="strided"))
        return dict.fromkeys((*tasks, "compressed-sensing"), same)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        top = self.levels[0]
        z = rng.normal(problem.x_like, "init")
        A, v = problem.spectral, top.sigma
        n = problem.sigma_y * A.inverse_spectrum(z)
        known = (A.spectrum(z) > 0) & (n < v)
        yb = A.inverse_spectrum(z) * A.Ut(problem.y)
        spread = torch.where(known, (v**2 - n**2).clamp_min(0).sqrt(), v)
        return State(0, top.a * A.V(known * yb + spread * A.Vt(z)), 0.0 * z)

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, w, eta = problem.spectral, to.sigma, self.eta_prop
        x0 = prior.x0(state.x, level)
        if to.s == 0 and self.last == "denoise":
            return State(state.step + 1, to.a * x0, x0)
        z = rng.normal(state.x, "step")
        plain = steps.renoise(x0, eps_from(state.x, x0, level), Level(1.0, w), z, eta * w)
        s, inverse = A.seen(A.spectrum(x0)), A.seen(A.inverse_spectrum(x0))
        n = problem.sigma_y * inverse
        db, zb, yb = A.Vt_seen(x0), A.Vt_seen(z), inverse * A.seen(A.Ut(problem.y))
        pull = math.sqrt(1 - eta**2) * w / n.clamp_min(torch.finfo(n.dtype).tiny)
        spread = (w**2 - (self.eta_b * n) ** 2).clamp_min(0).sqrt()
        after = n > w
        share = torch.where(after, pull, self.eta_b)
        xb = db + share * (yb - db) + torch.where(after, eta * w, spread) * zb
        change = torch.where(s > 0, xb - A.Vt_seen(plain), 0.0)
        return State(state.step + 1, to.a * (plain + A.V_seen(change)), x0)
