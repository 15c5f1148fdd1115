"""The denoiser of a Levy process: E[s | s + sigma n = x], its covariance, by a Gibbs sampler.

A process s_k = s_{k-1} + u_k that is seen with white noise is a chain of normal laws once the
variances of its increments are known (`gibbs.py`): a Kalman filter and a smoother give the mean, a
sample and the covariance in one pass each. What is averaged over draws of the variances are these
means and covariances, not samples, which leaves less noise of the draws. Whether an increment of
Bernoulli and Laplace is 0 is drawn with all else integrated out, by the filter from the left and
messages from the right (Carter and Kohn 1996, "Markov chain Monte Carlo in conditionally Gaussian
state space models").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invdiff.audit.gibbs import LAWS, VARIANCE, ZERO, precisions
from invdiff.core import Level
from invdiff.priors.base import Prior

Array = np.ndarray
TINY = 1e-300


@dataclass(frozen=True)
class Filtered:
    """Laws N(mean, variance) of s_k given x_1 ... x_k, both (L, ...); gain: what of a change of
    s_{k+1} s_k follows."""

    mean: Array
    variance: Array
    gain: Array


def filtered(x: Array, q: Array, noise: float) -> Filtered:
    """Kalman filter of x = s + noise (its variance), increments N(0, q); x and q (L, ...)."""
    mean, variance = np.empty_like(q), np.empty_like(q)
    m, p = np.zeros_like(q[0]), np.zeros_like(q[0])
    for k in range(len(q)):
        p = p + q[k]
        share = p / (p + noise)
        m = m + share * (x[k] - m)
        p = share * noise
        mean[k], variance[k] = m, p
    gain = np.zeros_like(q)
    gain[:-1] = variance[:-1] / np.maximum(variance[:-1] + q[1:], TINY)
    return Filtered(mean, variance, gain)


def smoothed(f: Filtered, z: Array | None = None) -> Array:
    """Mean of s given all of x, (L, ...); with white noise z of that shape, a sample."""
    s = f.mean.copy() if z is None else f.mean + np.sqrt(f.variance * (1 - f.gain)) * z
    for k in range(len(s) - 2, -1, -1):
        s[k] += f.gain[k] * (s[k + 1] - f.mean[k])
    return s


def jumped(x: Array, v: Array, w: Array, noise: float, rng: np.random.Generator) -> Array:
    """Whether each increment is not 0, drawn one after the other; x, v and w (L, B).

    v: before. w: variances of the increments where they are not 0.
    """
    length, q = len(x), v * w
    weight, pull = np.empty_like(x), np.empty_like(x)  # of x_k and all after it, as seen from s_k
    a = b = np.zeros_like(x[0])
    for k in range(length - 1, -1, -1):
        a, b = a + 1 / noise, b + x[k] / noise
        weight[k], pull[k] = a, b
        shrunk = 1 + q[k] * a
        a, b = a / shrunk, b / shrunk
    drawn, chance = np.empty_like(v), rng.random(x.shape)
    m, p, odds = np.zeros_like(x[0]), np.zeros_like(x[0]), math.log((1 - ZERO) / ZERO)
    for k in range(length):
        a, b = weight[k], pull[k]
        still, moved = 1 + p * a, 1 + (p + w[k]) * a
        fit = b * m - 0.5 * a * m * m
        log_odds = odds - 0.5 * np.log(moved / still)
        log_odds += (0.5 * (p + w[k]) * b * b + fit) / moved - (0.5 * p * b * b + fit) / still
        drawn[k] = np.log(chance[k] / (1 - chance[k])) < log_odds
        p = p + drawn[k] * w[k]
        share = p / (p + noise)
        m = m + share * (x[k] - m)
        p = share * noise
    return drawn


class Oracle(Prior):
    """The denoiser of a Levy process of `gibbs.LAWS`, for signals (B, 1, 1, L).

    burn, kept: sweeps of the Gibbs sampler before those that count, and of these. The draws are a
    function of sigma alone, so that a run can be repeated; row i has the i-th of them.
    """

    def __init__(self, law: str, burn: int = 20, kept: int = 40) -> None:
        self.law, self.burn, self.kept = law, burn, kept
        self.name = f"oracle of {LAWS[law]}"
        self.value_range = (-math.inf, math.inf)

    def draws(self, x: Array, sigma: float) -> tuple[Array, Array]:
        """Variances q of increments and means of s, both (L, kept, B), for x (L, B)."""
        rng = np.random.default_rng(np.float64(sigma).view(np.uint64))
        variance, s = sigma**2, x
        q, v = np.full_like(x, VARIANCE), np.ones_like(x)
        found, means = [], []
        for i in range(self.burn + self.kept):
            if self.law != "gauss":
                u = np.diff(s, axis=0, prepend=0)
                kind = "laplace" if self.law == "bl" else self.law
                q = 1 / precisions(kind, torch.from_numpy(u), rng).numpy()
                if self.law == "bl":
                    w = np.where(v > 0, q, rng.exponential(2.0, x.shape))
                    v = jumped(x, v, w, variance, rng)
                    q = v * w
            f = filtered(x, q, variance)
            s = smoothed(f, rng.standard_normal(x.shape))
            if i >= self.burn:
                found.append(q)
                means.append(smoothed(f))
        return np.stack(found, 1), np.stack(means, 1)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return x
        return _as(self.draws(_rows(x), sigma)[1].mean(1), x)

    def x0_vjp(
        self, xt: Tensor, level: Level, once: bool = False
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The Jacobian is the covariance over sigma^2: the mean of those given the variances, each
        of which is a smoother of v in place of x, and the covariance of the means."""
        if level.s == 0:
            return xt / level.a, lambda v: v / level.a
        variance = level.sigma**2
        q, means = self.draws(_rows(xt / level.a), level.sigma)
        mean = means.mean(1)
        about = means - mean[:, None]

        def pull(v: Tensor) -> Tensor:
            rows = _rows(v)
            within = smoothed(filtered(rows[:, None] + np.zeros_like(q), q, variance)).mean(1)
            between = (about * (about * rows[:, None]).sum(0)).mean(1) / variance
            return _as(within + between, v) / level.a

        return _as(mean, xt), pull


def _rows(x: Tensor) -> Array:
    """(B, ...) as (L, B), float64."""
    return np.ascontiguousarray(x.detach().double().flatten(1).numpy().T)


def _as(found: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(found.T)).reshape(like.shape).to(like.dtype)
