"""Samplers of azula (github.com/probabilists/azula) for a bench.

They travel on azula's `VPSchedule()`, in its 64 steps. Guided denoisers (mmps, tmpd, diffpir) are
sampled by its `DDPMSampler`. All other settings are azula's defaults. What azula leaves to its
user is told by the functions below. Measurements are rows of real numbers there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from invdiff.bench.peers.base import Draw, Peer, flat
from invdiff.core import Level
from invdiff.priors.base import Prior
from invdiff.problem import Problem
from invdiff.sampling.needs import Need

STEPS = 64
"""Of azula's `Sampler`."""
Make = Callable[[Any, Problem, dict[str, Any]], Any]
"""(denoiser, problem, arguments of the sampler) to a sampler of azula."""


def denoiser(prior: Prior, schedule: Any) -> Any:
    """A prior as azula's `Denoiser`: E[x0 | x_t] of x_t = alpha_t x0 + sigma_t eps.

    schedule: of azula, t to (alpha_t, sigma_t). x_t: (B, *x_shape).
    """
    from azula.denoise import Denoiser, DiracPosterior

    class Wrapped(Denoiser):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            alpha, sigma = schedule(t)
            return DiracPosterior(prior.x0(x_t, Level(float(alpha), float(sigma))))

    return Wrapped()


def forward(problem: Problem) -> Callable[[Tensor], Tensor]:
    """x (B, *x_shape) to A x as rows of real numbers."""
    return lambda x: flat(problem.A(x))


def log_twist(problem: Problem, data_std: float = math.inf) -> Callable[[Tensor, Tensor], Tensor]:
    """log N(y; A x0, S) but for a constant, (x0, sigma) to (B,): the twist of `TDSSampler`.

    S = sigma_y^2 I + c A A^T with 1 / c = 1 / sigma^2 + 1 / data_std^2. data_std inf: c = sigma^2;
    with 1, long steps at high levels overshoot on images. Of e = A x0 - y,
    S^-1 e = (e - A (A^T A + sigma_y^2 / c)^-1 A^T e) / sigma_y^2, and the gradient is -A^T S^-1 e.
    """
    A, variance = problem.linear, problem.sigma_y**2

    def log_p(x0: Tensor, sigma: Tensor) -> Tensor:
        e = A(x0) - problem.y
        with torch.no_grad():
            shift = variance * (1 / float(sigma) ** 2 + 1 / data_std**2)
            w = flat(e - A(A.ridge(e, shift))) / variance
            half = 0.5 * (flat(e) * w).sum(1)
        return half - (flat(e) * w).sum(1)

    return log_p


def _mmps(exact: Any, problem: Problem, how: dict[str, Any]) -> Any:
    """The covariance of the noise is sigma_y^2 I."""
    from azula.guidance import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance
    from azula.sample import DDPMSampler

    noise = IsotropicCovariance(problem.sigma_y**2)
    return DDPMSampler(MMPSDenoiser(exact, flat(problem.y), forward(problem), noise), **how)


def _tmpd(exact: Any, problem: Problem, how: dict[str, Any]) -> Any:
    from azula.guidance import TMPDenoiser
    from azula.sample import DDPMSampler

    y, variance = flat(problem.y), problem.sigma_y**2
    return DDPMSampler(TMPDenoiser(exact, y, forward(problem), variance), **how)


def _diffpir(exact: Any, problem: Problem, how: dict[str, Any]) -> Any:
    from azula.guidance import DiffPIRDenoiser
    from azula.sample import DDPMSampler

    y, variance = flat(problem.y), problem.sigma_y**2
    return DDPMSampler(DiffPIRDenoiser(exact, y, forward(problem), variance), **how)


def _dps(exact: Any, problem: Problem, how: dict[str, Any]) -> Any:
    from azula.guidance import DPSSampler

    return DPSSampler(exact, flat(problem.y), forward(problem), **how)


def _pgdm(exact: Any, problem: Problem, how: dict[str, Any]) -> Any:
    """A^+ is the generalised inverse of our operator; y and A x keep its shape."""
    from azula.guidance import PGDMSampler

    return PGDMSampler(exact, problem.y, problem.A, problem.invertible.pinv, **how)


def _tds(exact: Any, problem: Problem, how: dict[str, Any]) -> Any:
    """The twist is `log_twist`; the samples of a measurement are the particles."""
    from azula.guidance import TDSSampler

    return TDSSampler(exact, log_twist(problem), **how)


def _drawing(make: Make) -> Draw:
    """What draws samples by the sampler that make makes."""

    def draw(problem: Problem, prior: Prior, steps: int, count: int) -> Tensor:
        from azula.noise import VPSchedule

        exact = denoiser(prior, VPSchedule())
        sampler = make(exact, problem, {"steps": steps, "silent": True})
        start = sampler.init((count, *problem.x_shape), dtype=problem.y.dtype.to_real())
        found: Tensor = sampler(start)
        return found

    return draw


GRADIENTS = frozenset({Need.PRIOR_VJP, Need.OPERATOR_VJP})
LINEAR = frozenset({Need.LINEAR, Need.GAUSSIAN, Need.NOISY})
PEERS = (
    Peer("azula:dps", STEPS, GRADIENTS, _drawing(_dps)),
    Peer("azula:diffpir", STEPS, LINEAR, _drawing(_diffpir)),
    Peer("azula:mmps", STEPS, GRADIENTS | {Need.GAUSSIAN}, _drawing(_mmps)),
    Peer("azula:pgdm", STEPS, frozenset({Need.PRIOR_VJP, Need.GENERALISED_INVERSE}),
         _drawing(_pgdm)),
    Peer("azula:tds", STEPS, LINEAR | {Need.PRIOR_VJP}, _drawing(_tds), together=True),
    Peer("azula:tmpd", STEPS, LINEAR | {Need.PRIOR_VJP}, _drawing(_tmpd)),
)  # fmt: skip
"""Its samplers."""
