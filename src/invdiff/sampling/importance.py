"""Importance weights of samplers with normal kernels: what guidance did to the law of a chain.

A chain whose steps are N(m, c^2) by the denoiser draws from the prior, up to its discretisation.
One that is guided by y steps by N(m + e, c^2) instead. The quotient of the two densities, and
p(y | x0) at its end, make each row a weighted draw of the posterior of the former chain's law:
exp(log weight) has the mean p(y). Nothing else in the sampler changes; it costs no evaluation.

Weights are as even as guidance is gentle: where a step moves a row by much more than its noise,
few rows count. So levels should fall by a steady share, as those of Karras(100, 1000, 0.02) do; a
VP table with leading spacing ends in a fall that is too steep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invdiff.core import InvdiffError, Level
from invdiff.core.rng import Rng
from invdiff.problem import Problem
from invdiff.sampling import steps
from invdiff.sampling.state import State

KEY = "log_weight"
"""The entry of `State.extra`, of shape (B,), in which a solver carries its weights."""


def start(x: Tensor, levels: Sequence[Level], eta_ddim: float) -> dict[str, Tensor]:
    """`extra` of a chain that begins: a log weight of 0 for every row of x.

    Raises InvdiffError where a step but the last has no noise of its own: it has no density.
    """
    pairs = zip(levels[:-2], levels[1:-1], strict=True)
    if not all(steps.ddim_std(level, to, eta_ddim) > 0 for level, to in pairs):
        raise InvdiffError(
            "Weights need fresh noise in every step; take an eta_ddim above 0, and a schedule "
            "whose noise falls at every step."
        )
    return {KEY: torch.zeros_like(x.flatten(1)[:, 0])}


def carried(
    state: State, guided: Tensor, x0: Tensor, level: Level, to: Level, z: Tensor, eta_ddim: float
) -> dict[str, Tensor]:
    """`extra` after a DDIM step from state by `guided`, where the prior's own takes x0."""
    return {KEY: state.extra[KEY] + gained(guided, x0, level, to, z, eta_ddim).to(x0.dtype)}


def gained(
    guided: Tensor,
    x0: Tensor,
    level: Level,
    to: Level,
    z: Tensor,
    eta_ddim: float,
    wider: float = 1.0,
) -> Tensor:
    """log N(x; m, c^2) - log N(x; m + e, c^2) at x = m + e + c z, (B,), float64.

    m, m + e: means of a DDIM step by x0, and by `guided`. z: the noise that was added. c: the
    deviation of the step, `wider` times that of DDIM.
    """
    fresh = steps.ddim_std(level, to, eta_ddim)
    old = math.sqrt(max(to.s**2 - fresh**2, 0.0))
    by_x0 = (to.a - old * level.a / level.s) / (wider * fresh)
    e = (by_x0 * (guided - x0)).flatten(1).double()
    return -(z.flatten(1).double() * e).sum(1) - 0.5 * e.square().sum(1)


def finished(state: State, x0: Tensor, level: Level, problem: Problem, rng: Rng) -> State:
    """The last step, from level to the image: a draw of N(x0, sigma^2), which is not guided, so
    that p(y | x) is all that its weight gains."""
    x = x0 + level.sigma * rng.normal(x0, "step")
    weight = state.extra[KEY] + log_likelihood(x, problem).to(x.dtype)
    return State(state.step + 1, x, x0, {KEY: weight})


def log_likelihood(x: Tensor, problem: Problem) -> Tensor:
    """log N(y; A x, sigma_y^2) of what was measured, (B,), float64; complex y counts twice."""
    A, y, variance = problem.A, problem.y, problem.sigma_y**2
    r = A.restrict(problem.residual(x)).flatten(1).abs().double()
    count = (A.restrict(torch.ones_like(y)) != 0).flatten(1).sum(1) * (2 if y.is_complex() else 1)
    return -0.5 * (r.square().sum(1) / variance + count * math.log(2 * math.pi * variance))


def effective_size(log_weight: Tensor) -> Tensor:
    """1 / sum W^2 over the last axis, W the normalised weights: from 1 to their number."""
    return 1 / torch.softmax(log_weight.double(), dim=-1).square().sum(-1)


def log_evidence(log_weight: Tensor) -> Tensor:
    """The log of the mean weight over the last axis: an estimate of log p(y)."""
    weights = log_weight.double()
    return torch.logsumexp(weights, dim=-1) - math.log(weights.shape[-1])


def moments(samples: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of samples (M, n, ...), each (M, ...).

    log_weight: (M, n). The variance is divided by 1 - sum W^2, which is 1 - 1 / n for equal ones.
    """
    W = torch.softmax(log_weight.double(), dim=1).to(samples.dtype)
    W = W.reshape(*W.shape, *[1] * (samples.ndim - 2))
    mean = (W * samples).sum(1)
    variance = (W * (samples - mean[:, None]).square()).sum(1)
    rest = (1 - W.square().sum(1)).clamp_min(torch.finfo(samples.dtype).tiny)
    return mean, (variance / rest).sqrt()


def systematic(log_weight: Tensor, u: Tensor, count: int | None = None) -> Tensor:
    """Indices of n rows of equal weight, (..., n): row i comes n W_i times, rounded up or down.

    log_weight: (..., m). u: one number of U[0, 1) for each leading entry, (...). count: n; m where
    it is not told. Indices rise.
    """
    n = count or log_weight.shape[-1]
    edges = torch.softmax(log_weight.double(), dim=-1).cumsum(-1)
    grid = (u.double()[..., None] + torch.arange(n, dtype=torch.float64, device=u.device)) / n
    return torch.searchsorted(edges / edges[..., -1:], grid, right=True).clamp_max(
        log_weight.shape[-1] - 1
    )
