"""Denoising diffusion restoration: replacement in the operator's singular basis, noise-aware."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invdiff.core import Problem, State
from invdiff.needs import Need
from invdiff.paths import VP, Path
from invdiff.priors.base import Prior, eps_from
from invdiff.rng import Rng
from invdiff.solvers.base import Solver, knob


@dataclass(frozen=True)
class DDRM(Solver):
    """Each singular mode follows y while y is less noisy than the state, then the denoiser.

    Kawar, Elad, Ermon, Song 2022, "Denoising diffusion restoration models", arXiv 2201.11793,
    equations 7 and 8, in coordinates x_t / a_t: w = next sigma, n_i = sigma_y / s_i.
    x_bar -> xb = V^T x, theta_bar -> db = V^T x0, y_bar -> yb = S^-1 U^T y.

    A mode with s_i = 0 takes the rule of unobserved modes, and n_i = w the rule of precise ones,
    so that noiseless data are kept in the last step. The official code does neither: where
    s_i is stored as 0, it adds U^T y / sigma_y to the mode, and its last step returns the
    denoiser's estimate, as last "denoise" does.
    """

    name: ClassVar[str] = "ddrm"
    paper: ClassVar[str] = "Kawar, Elad, Ermon, Song 2022, arXiv 2201.11793, eq. 7 and 8"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SVD, Need.GAUSSIAN})

    eta_prop: float = knob(0.85, "share of fresh noise where y says less than the prior", 0, 1)
    eta_b: float = knob(1.0, "weight of y where it is more precise than the state", 0, 1)
    last: Literal["consistent", "denoise"] = knob(
        "consistent", "whether the last step keeps noiseless data, or returns the denoiser's x0"
    )
    path: Path = field(default_factory=lambda: VP(20), kw_only=True)

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
        A, w = problem.spectral, to.sigma
        x0 = prior.x0(state.x, level)
        if to.s == 0 and self.last == "denoise":
            return State(state.step + 1, to.a * x0, x0)
        db, eb = A.Vt(x0), A.Vt(eps_from(state.x, x0, level))
        z = A.Vt(rng.normal(state.x, "step"))
        yb = A.inverse_spectrum(x0) * A.Ut(problem.y)
        d, y, e, f = self._weights(A.spectrum(x0), A.inverse_spectrum(x0), problem.sigma_y, w)
        return State(state.step + 1, to.a * A.V(d * db + y * yb + e * eb + f * z), x0)

    def _weights(self, s: Tensor, inverse: Tensor, sigma_y: float, w: float) -> list[Tensor]:
        """Weights of (db, yb, eb, fresh noise) in each mode, by its n_i = sigma_y / s_i."""
        eta, c = self.eta_prop, math.sqrt(1 - self.eta_prop**2)
        n = sigma_y * inverse
        pull = c * w / n.clamp_min(torch.finfo(n.dtype).tiny)
        spread = (w**2 - (self.eta_b * n) ** 2).clamp_min(0).sqrt()
        unseen, after = s == 0, n > w

        def choose(u: float, a: Tensor | float, b: Tensor | float) -> Tensor:
            one = torch.ones_like(n)
            return torch.where(unseen, u * one, torch.where(after, a * one, b * one))

        return [
            choose(1.0, 1 - pull, 1 - self.eta_b),
            choose(0.0, pull, self.eta_b),
            choose(c * w, 0.0, 0.0),
            choose(eta * w, eta * w, spread),
        ]
