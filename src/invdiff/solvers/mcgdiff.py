"""MCGdiff: particles that follow y, noised to each level, mode by mode, without a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from invdiff.core import Level
from invdiff.core.rng import Rng
from invdiff.core.schedules import VP, Karras, Path
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import importance, steps
from invdiff.sampling.needs import Need
from invdiff.sampling.particles import ParticleFilter
from invdiff.sampling.solver import UNIT, Range, knob
from invdiff.sampling.state import State


@dataclass(frozen=True)
class MCGDiff(ParticleFilter):
    """A particle filter whose potentials are those of y noised forward; exact steps towards them.

    Cardoso, Janati El Idrissi, Le Corff, Moulines 2024, "Monte Carlo guided denoising diffusion
    models for Bayesian linear inverse problems", ICLR, arXiv 2308.07983, Algorithms 1 and 2. N ->
    particles. In z = V^T x / a, of the basis in which A = U S V^T, with y_i = (U^T y)_i / s_i:
    mode i is measured with noise sigma_y / s_i, which x_t has at the level tau_i, sigma_tau the
    nearest of the path. From there up it carries the potential N(z_i; y_i, v_i), v_i = sigma^2 -
    sigma_tau^2 + kappa (1 + sigma_tau^2); below it none. A step draws z from the prior's kernel
    N(m, c^2), that of DDIM with D, times the potentials of the next level, and a row gains the
    integral of that product over the potentials of its own level. The last step gains p(y | x0) too.

    Asymptotic in particles, for the law of the discretised prior. No gradient of the network: 1
    evaluation a step. Deviations: levels are those of the path, and tau_i the nearest of them,
    where the authors insert it; they resample at every step, multinomially, and draw x0 from the
    kernel of their first level, where the last step here draws from N(D, sigma^2).
    """

    name: ClassVar[str] = "mcgdiff"
    paper: ClassVar[str] = "Cardoso et al. 2024, arXiv 2308.07983, Algorithms 1 and 2"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SVD, Need.GAUSSIAN, Need.NOISY})
    when_it_diverges: ClassVar[str] = "a larger kappa"

    kappa: float = knob(0.01, "width of the potentials at the level of y's own noise", 1e-8, 1)
    eta_ddim: float = knob(0.85, "fresh noise per step: 1 is DDPM", 0.01, 1)
    path: Path = field(default_factory=lambda: Karras(100, 100.0, 0.01), kw_only=True)

    @classmethod
    def configurations(cls, value_range: Range = UNIT) -> dict[str, Self]:
        """configs/algorithm/mcgdiff.yaml of devzhk/InverseBench: 200 steps and 64 particles; and
        the default of mcg_diff/particle_filter.py of gabrielvc/mcg_diff: kappa 1e-4, eta 1."""
        return {
            "inverse-scattering": cls(64, path=VP(200)),
            "package": cls(threshold=1.0, kappa=1e-4, eta_ddim=1.0, path=VP(100)),
        }

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        """Noise at the first level, drawn together with its potentials."""
        top, A = self.levels[0], problem.spectral
        z = A.Vt(rng.normal(problem.x_like, "init"))
        target, on, v = self._potentials(problem, top, z)
        z, gained = _drawn(torch.zeros_like(z), top.sigma, target, on, v, z)
        extra = self.start(problem, problem.x_like)
        x = top.a * A.V(z)
        return State(0, x, 0.0 * x, extra | {"log_w": gained})

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, x0 = problem.spectral, prior.x0(state.x, level)
        u = state.x / level.a
        left = _log_normal(A.Vt(u), *self._potentials(problem, level, A.Vt(u)))
        noise = rng.normal(u, "step")
        if to.s == 0:
            end = x0 + level.sigma * noise
            gained = importance.log_likelihood(end, problem) - left
            return self.ended(
                state.extra | {"log_w": state.extra["log_w"] + gained}, end, x0, rng
            )
        fresh = steps.ddim_std(level, to, self.eta_ddim) / to.a
        old = math.sqrt(to.sigma**2 - fresh**2) / level.sigma
        m = A.Vt(x0 + old * (u - x0))
        target, on, v = self._potentials(problem, to, m)
        extra, (m, x0) = self.chosen(
            state.extra, _log_normal(m, target, on, v + fresh**2) - left, rng, m, x0
        )
        z, _ = _drawn(m, fresh, target, on, v, A.Vt(noise))
        return State(state.step + 1, to.a * A.V(z), x0, extra)

    def _potentials(
        self, problem: Problem, level: Level, z: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """y_i, which modes carry a potential at the level, and their v_i, for coefficients z."""
        A = problem.spectral
        s, inverse = A.spectrum(z), A.inverse_spectrum(z)
        sigmas = torch.tensor([u.sigma for u in self.levels[:-1]], dtype=s.dtype, device=s.device)
        own = (problem.sigma_y * inverse)[..., None]
        tau = sigmas[(own.clamp_min(1e-30).log() - sigmas.log()).abs().argmin(-1)]
        on = (s > 0) & (tau <= level.sigma)
        v = (level.sigma**2 - tau**2).clamp_min(0.0) + self.kappa * (1 + tau**2)
        return inverse * A.Ut(problem.y), on, torch.where(on, v, 1.0)


def _log_normal(z: Tensor, target: Tensor, on: Tensor, v: Tensor) -> Tensor:
    """Sum of log N(z_i; target_i, v_i) over the modes that are on, (B,), float64."""
    off = (z - target).abs().double()
    each = -0.5 * (off.square() / v + torch.log(2 * math.pi * v))
    return torch.where(on, each, 0.0).flatten(1).sum(1)


def _drawn(
    m: Tensor, std: float, target: Tensor, on: Tensor, v: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """A draw of N(m, std^2) times N(target, v) where on; and the log of the product's integral."""
    share = torch.where(on, std**2 / (std**2 + v), 0.0)
    wide = torch.where(on, (share * v).sqrt(), std)
    return m + share * (target - m) + wide * noise, _log_normal(m, target, on, v + std**2)
