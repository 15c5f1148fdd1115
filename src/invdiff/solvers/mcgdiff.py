"""MCGdiff: particles that follow y, noised to each level, mode by mode, without a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from invdiff.core.rng import Rng
from invdiff.core.schedules import Karras, Schedule
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.needs import Need
from invdiff.sampling.particles import ParticleFilter
from invdiff.sampling.solver import knob
from invdiff.sampling.state import State
from invdiff.solvers.moments import real, unreal


@dataclass(frozen=True)
class MCGDiff(ParticleFilter):
    """A particle filter whose potentials are those of y noised forward; exact steps towards them.

    Cardoso, Janati, Le Corff, Moulines 2024, "Monte Carlo guided denoising diffusion
    models for Bayesian linear inverse problems", ICLR, arXiv 2308.07983, Algorithms 1 and 2. N ->
    particles. In z = V^T x / a, of the basis in which A = U S V^T, with y_i = (U^T y)_i / s_i:
    mode i is measured with noise n_i = sigma_y / s_i. x_t of a lower level tau_i is such a
    measurement of x0, but for noise of variance n_i^2 - sigma_tau^2: so y_i may be taken for one of
    x_tau, N(y_i; z_i, n_i^2 - sigma_tau^2), and of x_t above it for N(y_i; z_i, v_i), v_i = sigma^2
    + n_i^2 - 2 sigma_tau^2. A step draws z from the prior's kernel N(m, c^2), that of DDIM with D,
    times the potentials of the next level. A row gains the integral of that product over the
    potentials of its own level, without those of modes that stand at their tau.

    Asymptotic in particles, for the law of the discretised prior. No gradient of the network: 1
    evaluation a step. Deviations: the authors insert levels at which sigma_tau = n_i, where the
    potential has the width kappa; here tau_i is the noisiest level of the schedule, or the image,
    that leaves at least kappa n_i^2 to the potential, so that nothing is added to y's noise. They
    resample at every step, multinomially.
    """

    name: ClassVar[str] = "mcgdiff"
    paper: ClassVar[str] = "Cardoso et al. 2024, arXiv 2308.07983, Algorithms 1 and 2"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SVD, Need.GAUSSIAN, Need.NOISY})
    when_it_diverges: ClassVar[str] = "a larger kappa"

    kappa: float = knob(0.5, "share of y's variance that the potentials have at least", 1e-6, 1)
    eta_ddim: float = knob(1.0, "fresh noise per step: 1 is DDPM", 0.01, 1)
    schedule: Schedule = field(default=Karras(100, 100.0, 0.01), kw_only=True)

    def init(self, problem: Problem, prior: Prior, rng: Rng) -> State:
        """Noise at the first level, drawn together with its potentials."""
        top, A = self.levels[0], problem.spectral
        z = A.Vt(rng.normal(problem.x_like, "init"))
        z, gained = _drawn(0 * z, top.sigma, self._potentials(problem, 0, 0, z), z)
        x = top.a * A.V(z)
        extra = self.start(problem, x)
        return State(0, x, 0.0 * x, extra | {"log_w": gained + _of_the_rest(problem, z)})

    def step(self, state: State, problem: Problem, prior: Prior, rng: Rng) -> State:
        level, to = self.levels[state.step], self.levels[state.step + 1]
        A, x0, u = problem.spectral, prior.x0(state.x, level), state.x / level.a
        noise = rng.normal(u, "step")
        fresh = steps.ddim_std(level, to, self.eta_ddim) / to.a if to.s else level.sigma
        old = math.sqrt(max(to.sigma**2 - fresh**2, 0.0)) / level.sigma
        m, z = A.Vt(x0 + old * (u - x0)), A.Vt(u)
        here, there = (self._potentials(problem, state.step + k, state.step + 1, z) for k in (0, 1))
        gained = there.log_p(m, fresh**2) - here.log_p(z)
        extra, (m, x0) = self.chosen(state.extra, gained, rng, m, x0)
        z, _ = _drawn(m, fresh, there, A.Vt(noise))
        x = to.a * A.V(z)
        if to.s == 0:
            return self.ended(extra, x, x0, rng)
        return State(state.step + 1, x, x0, extra)

    def _potentials(self, problem: Problem, step: int, last: int, z: Tensor) -> Potentials:
        """Those of the level at a step, of modes whose own level comes at step `last` or later."""
        A = problem.spectral
        s, inverse = A.spectrum(z), A.inverse_spectrum(z)
        variance = (problem.sigma_y * inverse.double()).square()
        sigma2 = torch.tensor([u.sigma**2 for u in self.levels], dtype=s.dtype, device=s.device)
        sigma2 = sigma2.double()
        fits = sigma2 <= (1 - self.kappa) * variance[..., None]  # the last level always does
        tau = fits.double().argmax(-1)
        v = sigma2[step] + variance - 2 * sigma2[tau]
        on = (s > 0) & (tau >= last)
        return Potentials(inverse * A.Ut(problem.y), on, torch.where(on, v, 1.0))


@dataclass(frozen=True)
class Potentials:
    """N(target, v) of the coefficients that are on; v is float64, 1 where none is."""

    target: Tensor
    on: Tensor
    v: Tensor

    def log_p(self, z: Tensor, more: float = 0.0) -> Tensor:
        """Sum of log N(z; target, v + more) over those that are on, (B,), float64."""
        v, off = self.v + more, (z - self.target).double()
        each = -0.5 * (off.square() / v + torch.log(2 * math.pi * v))
        return torch.where(self.on, each, 0.0).flatten(1).sum(1)


def _drawn(m: Tensor, std: float, given: Potentials, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A draw of N(m, std^2) times potentials, and the log of the integral of that product."""
    share = torch.where(given.on, std**2 / (std**2 + given.v), 0.0)
    wide = torch.where(given.on, (share * given.v).sqrt(), std).to(m.dtype)
    z = m + share.to(m.dtype) * (given.target - m) + wide * noise
    return z, given.log_p(m, std**2)


def _of_the_rest(problem: Problem, z: Tensor) -> Tensor:
    """log p(y) minus that of all y_i, (B,): their scale, and what of y no image explains."""
    A, c = problem.spectral, problem.spectral.Ut(problem.y)
    s, variance = A.spectrum(z).double(), problem.sigma_y**2
    seen = (s > 0) & torch.ones_like(c, dtype=torch.bool)
    y = real(A.restrict(problem.y)).double()
    ones = real(A.restrict(unreal(torch.ones_like(real(problem.y)), problem.y)))
    count = (ones != 0).sum(1) - seen.flatten(1).sum(1)
    rest = y.square().sum(1) - torch.where(seen, c.double().square(), 0.0).flatten(1).sum(1)
    scale = torch.where(seen, torch.where(s > 0, s, 1.0).log(), 0.0).flatten(1).sum(1)
    return -scale - 0.5 * (rest / variance + count * math.log(2 * math.pi * variance))
